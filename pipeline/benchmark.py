"""`benchmark`: how fast the products of a model are, beside PyTorch on the same images."""

from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline import params as parameters
from pipeline import paths
from tinygrow.benchmark.contenders import onnx_contenders, torch_contenders
from tinygrow.benchmark.document import (
    cells_to_csv,
    remarks,
    surroundings,
    table,
    to_document,
)
from tinygrow.benchmark.measure import Contender, Plan, measure
from tinygrow.checkpoint import load_checkpoint, require_fit
from tinygrow.data.prepared import load_card
from tinygrow.deploy.predictor import Predictor
from tinygrow.deploy.published import published_products
from tinygrow.deploy.sessions import usable_providers
from tinygrow.errors import TinygrowError
from tinygrow.files import write_json, write_text
from tinygrow.observer import Observer
from tinygrow.report.speed import speed_svg


def run(
    name: str,
    plan: Plan,
    *,
    threads: int,
    providers: Sequence[str] = (),
    pytorch: bool = True,
    compiled: bool = True,
    output: Path | None = None,
    observer: Observer,
) -> list[str]:
    """Measure the published products of the model `name`; return the lines that tell of it.

    PyTorch runs the network as it was trained, in evaluation mode, in float32; ONNX Runtime the
    files as they are. Both take uint8 images in the CPU's memory and leave logits there.

    Args:
        name: of a block under `models` in `params.yaml`.
        plan: what to measure.
        threads: of the CPU for either engine; 0: as many as PyTorch takes by itself.
        providers: of ONNX Runtime; empty: each that runs on this machine.
        pytorch: measure it as well.
        compiled: with `torch.compile`, which needs a compiler of C++ on the CPU.
        output: folder of `benchmark.json`, `.csv` and `.svg`; default: `metrics/NAME/benchmark`.
        observer: told of progress.

    Raises:
        TinygrowError: nothing is published, or nothing of what was asked for runs.
    """
    products = published_products(paths.products_folder(name))
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    around = surroundings(threads, _gpu())
    contract = Predictor(products[0].path, "cpu").contract
    contenders, absent = onnx_contenders(
        [(p.precision, p.path) for p in products], providers or usable_providers(), threads
    )
    if pytorch:
        contenders += _pytorch(name, compiled)
    if not contenders:
        raise TinygrowError(f"nothing can be measured: {'; '.join(absent)}")
    cells = measure(contenders, contract.shape, plan, observer)
    document = to_document(
        name,
        cells,
        plan,
        checksums={p.precision: p.sha256 for p in products},
        absent=absent,
        surroundings=around,
    )
    folder = output or paths.benchmark_folder(name)
    write_json(folder / paths.BENCHMARK, document)
    write_text(folder / "benchmark.csv", cells_to_csv(cells))
    write_text(folder / "benchmark.svg", speed_svg(document["cells"], name))
    return [
        ", ".join(f"{key} {value}" for key, value in around.items()),
        f"PyTorch: the network as trained, float32. {plan.runs} timed calls a cell; * fewer.",
        "",
        table(cells),
        "",
        *remarks(cells, absent),
        f"written: {folder}/benchmark.json, .csv, .svg",
    ]


def _gpu() -> str | None:
    """Return the name of the GPU that PyTorch sees first, and the version of CUDA; or nothing."""
    if not torch.cuda.is_available():
        return None
    return f"{torch.cuda.get_device_name(0)} (CUDA {torch.version.cuda})"


def _pytorch(name: str, compiled: bool) -> list[Contender]:
    card = load_card(paths.prepared(parameters.read().value(name, "data")))
    checkpoint = load_checkpoint(paths.finetuned(name))
    require_fit(checkpoint, card, paths.finetuned(name))
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [
        contender
        for device in devices
        for contender in torch_contenders(checkpoint.network, card, device, compiled=compiled)
    ]
