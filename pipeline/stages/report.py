"""Stage `report`: one page with pictures and samples, and the flat figures of the whole way."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline import params as parameters
from pipeline import paths
from tinygrow.benchmark.document import cells_of, machine_line, read_document, speed_table
from tinygrow.connectivity.drawing import draw
from tinygrow.data.prepared import load_card, load_split
from tinygrow.deploy.predictor import Predictor
from tinygrow.deploy.published import published_products
from tinygrow.errors import TinygrowError
from tinygrow.files import atomic_folder, write_json
from tinygrow.observer import Observer
from tinygrow.report import numbers
from tinygrow.report.history import History, read_json
from tinygrow.report.page import PageData, render_page
from tinygrow.report.pictures import draw_overview, draw_pictures
from tinygrow.report.samples import choose_samples
from tinygrow.settings.products import PRECISIONS

_PACKAGES = ("tinygrow", "torch", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "matplotlib")


def run(name: str, *, observer: Observer) -> None:
    """Write the report of the model `name` and its summary.

    Args:
        name: of a block under `models` in `params.yaml`.
        observer: told where the page is.

    Raises:
        TinygrowError: a file of an earlier stage is missing or not what that stage writes.
    """
    values = parameters.read()
    data_name = values.value(name, "data")
    data = paths.prepared(data_name)
    card = load_card(data)
    history = History.read(
        name, paths.growth_table(name), paths.growth_details(name), paths.finetune_table(name)
    )
    figures = {
        "grow": read_json(paths.growth_metrics(name)),
        "finetune": read_json(paths.finetune_metrics(name)),
        "export": read_json(paths.export_metrics(name)),
        # The page is about fp32; what there is besides stands in a table of its own.
        "validate": read_json(paths.validation(name))["products"]["fp32"],
        "sidecar": read_json(paths.sidecar(name)),
    }
    sidecars = _sidecars(name)
    published = [entry["precision"] for entry in sidecars if entry["validated"]]
    if not published:
        raise TinygrowError(f"no product of {name} passed the gate; see {paths.validation(name)}")
    # The CPU is everywhere, so that a report does not change with the machine that draws it.
    predictor = Predictor(paths.product(name, published[0]), provider="cpu")
    test = load_split(data, "test")
    samples = choose_samples(
        test.images.numpy(), test.labels.numpy(), card.classes, predictor.logits
    )
    pictures = draw_pictures(history)
    # What an older version grew has none.
    known = paths.connectivity(name).is_file()
    wiring = read_json(paths.connectivity(name)) if known else {}
    drawn = draw(wiring) if "outputs" in wiring else ""
    summary = _summary(name, **figures)
    page = render_page(
        PageData(
            history=history,
            pictures=pictures,
            samples=samples,
            data=card,
            settings=values.tree["models"][name],
            data_settings=values.tree["data"][data_name],
            versions=_versions(),
            products=sidecars,
            certificate=read_json(paths.certificate(name)),
            connectivity=wiring,
            drawing=drawn,
            **_speed(name),
            **figures,
        )
    )
    with atomic_folder(paths.report_folder(name)) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8")
        (folder / "overview.png").write_bytes(draw_overview(history, _headline(summary)))
        (folder / "pictures").mkdir()
        for picture in pictures:
            if picture.svg:
                (folder / "pictures" / f"{picture.name}.svg").write_text(
                    picture.svg, encoding="utf-8"
                )
        if drawn:
            (folder / "pictures" / "connectivity.svg").write_text(drawn, encoding="utf-8")
        (folder / paths.report_samples(name).name).mkdir()
        for sample in (*samples.of_classes, *samples.mistakes):
            (folder / paths.report_samples(name).name / sample.file_name).write_bytes(sample.png)
    write_json(paths.summary(name), summary)
    observer.say(f"report: {paths.report_page(name)}")


def _sidecars(name: str) -> list[Mapping[str, Any]]:
    """Return what the gate says of each precision, fp32 first."""
    found = (paths.sidecar(name, precision) for precision in PRECISIONS)
    return [read_json(path) for path in found if path.is_file()]


def _speed(name: str) -> dict[str, Any]:
    """Return the benchmark's medians, where it was run on these products; nothing else is told."""
    document = read_document(paths.benchmark(name))
    if document is None:
        return {}
    products = published_products(paths.products_folder(name))
    cells = cells_of(document, {product.precision: product.sha256 for product in products})
    return {"speed": speed_table(cells), "speed_machine": machine_line(document["machine"])}


def _summary(
    name: str,
    grow: Mapping[str, Any],
    finetune: Mapping[str, Any],
    export: Mapping[str, Any],
    validate: Mapping[str, Any],
    sidecar: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the figures that `dvc exp show` compares; accuracies in percent."""
    try:
        single = [e["median_ms"] for e in sidecar["latency"] if e["batch"] == 1]
        return {
            "test_accuracy": export["test_accuracy"],
            "onnx_test_accuracy": validate["checks"]["accuracy"]["numbers"].get("onnx"),
            "validation_accuracy": finetune["validation_accuracy"],
            "growth_validation_accuracy": grow["validation_accuracy"],
            "parameters": export["parameters"],
            "multiply_adds": export["multiply_adds"],
            "file_bytes": export["file_bytes"],
            "latency_ms_batch1": single[0] if single else None,
            "validated": bool(validate["passed"]),
        }
    except KeyError as error:
        raise TinygrowError(
            f"the figures under {paths.metrics_folder(name)} lack {error}; run dvc repro with this"
            " version"
        ) from error


def _headline(summary: Mapping[str, Any]) -> str:
    return (
        f"{numbers.percent(summary['test_accuracy'])} of the test images right   ·  "
        f" {numbers.count(summary['parameters'])} parameters"
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
