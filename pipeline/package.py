"""`package`: all that is needed to run a model elsewhere, as a folder and an archive."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline import params as parameters
from pipeline import paths
from tinygrow.benchmark.document import read_document
from tinygrow.data.prepared import load_card, load_split
from tinygrow.deploy.contract import Contract
from tinygrow.deploy.published import published_products
from tinygrow.deploy.sessions import open_session
from tinygrow.errors import TinygrowError
from tinygrow.files import atomic_folder, write_bytes, write_text
from tinygrow.observer import Observer
from tinygrow.package import card as cards
from tinygrow.package.archive import CHECKSUMS, write_archive, write_checksums
from tinygrow.package.render import render
from tinygrow.package.samples import write_samples
from tinygrow.package.triton import labels, write_triton
from tinygrow.report.history import History

_TEMPLATES = Path(cards.__file__).with_name("templates")


def run(
    name: str,
    *,
    output: Path | None = None,
    triton: bool = False,
    docker: bool = False,
    licence: str = "",
    observer: Observer,
) -> Path:
    """Write the package of the model `name` and, beside it, the same as .tar.gz.

    Args:
        name: of a block under `models` in `params.yaml`.
        output: the folder; default: `packages/NAME`. One that is there is replaced if it is a
            package.
        triton: with a model repository for Triton.
        docker: with a Dockerfile.
        licence: SPDX name for the model card.
        observer: told where it is.

    Returns:
        The folder.

    Raises:
        TinygrowError: nothing is published, a stage's file is missing, or `output` is something
            else.
    """
    folder = Path(output) if output else paths.package_folder(name)
    if folder.exists() and not (folder / CHECKSUMS).is_file() and any(folder.iterdir()):
        raise TinygrowError(
            f"{folder} is there and no package (it has no {CHECKSUMS}); name another folder with"
            " --output, or remove it"
        )
    card = _card(name, licence)
    contract = Contract.from_metadata(card.facts)
    test = load_split(paths.prepared(card.data.name), "test")
    with atomic_folder(folder) as made:
        for product in card.products:
            write_bytes(made / f"{product.precision}.onnx", product.path.read_bytes())
            verdicts = product.sidecar_path.read_bytes()
            write_bytes(made / f"{product.precision}.json", verdicts)
        for path in (paths.certificate(name), paths.uncompressed(name)):
            if path.is_file():
                write_bytes(made / path.name, path.read_bytes())
        write_text(made / "README.md", cards.model_card(card))
        write_text(made / "labels.txt", labels(contract))
        write_text(made / "requirements.txt", _requirements())
        write_bytes(made / "predict.py", (_TEMPLATES / "predict.py").read_bytes())
        write_samples(
            made / "samples",
            card.products,
            test.images.numpy(),
            test.labels.numpy(),
            contract.classes,
        )
        if triton:
            write_triton(made / "triton", card.products, contract)
        if docker:
            _write_docker(made, name)
        write_checksums(made)
        archive = folder.with_name(f"{folder.name}.tar.gz")
        write_archive(made, archive, folder.name)
    observer.say(f"{folder}, {archive}: {', '.join(p.precision for p in card.products)}")
    return folder


def _card(name: str, licence: str) -> cards.CardData:
    products = published_products(paths.products_folder(name))
    session = open_session(products[0].path, "cpu")
    return cards.CardData(
        model=name,
        products=products,
        facts=session.get_modelmeta().custom_metadata_map,
        data=load_card(paths.prepared(parameters.read().value(name, "data"))),
        history=History.read(
            name, paths.growth_table(name), paths.growth_details(name), paths.finetune_table(name)
        ),
        refused=_refused(name),
        benchmark=read_document(paths.benchmark(name)),
        licence=licence,
    )


def _refused(name: str) -> dict[str, str]:
    """Return the reason of each product that the gate refused."""
    try:
        found = json.loads(paths.validation(name).read_text(encoding="utf-8"))
        products = found.get("products", {})
        return {p: e["reason"] for p, e in products.items() if not e["published"]}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise TinygrowError(
            f"{paths.validation(name)} is not what the validate stage writes ({error!r}); run it"
            " again"
        ) from error


def _requirements() -> str:
    """Return the versions that made the expected outputs; the CPU's package of ONNX Runtime."""
    try:
        runtime = version("onnxruntime-gpu")
    except PackageNotFoundError:
        runtime = version("onnxruntime")
    found = {"numpy": version("numpy"), "onnxruntime": runtime, "pillow": version("pillow")}
    return "".join(f"{package}=={number}\n" for package, number in found.items())


def _write_docker(made: Path, name: str) -> None:
    text = render("Dockerfile.j2", tag=name.lower(), python=platform.python_version())
    write_text(made / "Dockerfile", text)
    write_text(made / ".dockerignore", "triton/\n*.tar.gz\n")
