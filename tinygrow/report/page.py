"""One HTML page per model that works offline: everything it shows is inside the file."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from tinygrow.benchmark.document import SpeedTable
from tinygrow.connectivity.text import depths_told, paths_told, whole_told
from tinygrow.data.prepared import DataCard
from tinygrow.errors import TinygrowError
from tinygrow.report import compression, numbers
from tinygrow.report.history import History
from tinygrow.report.pictures import Picture
from tinygrow.report.samples import Sample, Samples
from tinygrow.report.style import dark_rules, inline_svg
from tinygrow.report.tables import (
    Row,
    accuracy_rows,
    check_rows,
    headline,
    latency_rows,
    product_rows,
    setting_rows,
    time_shares,
    width_rows,
)

_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PageData:
    """All that a page tells.

    Attributes:
        history: tables of growth and fine-tuning.
        pictures: drawn from it.
        samples: test images with predictions.
        data: card of the data set.
        grow: figures of the grow stage, as its JSON file has them.
        finetune: likewise.
        export: likewise.
        validate: likewise: `passed`, and under `checks` status, numbers and reason of each.
        sidecar: what lies beside the fp32 product: `latency`, `machine`, `sha256`.
        products: the sidecars of all precisions.
        settings: the model's block of settings, as plain data.
        data_settings: the data set's block.
        versions: package to version, of the stage that wrote the page.
        connectivity: how the network is wired, from `describe`, or `unreadable` with the reason;
            empty where growth told nothing.
        drawing: of it, an SVG file; empty where it is unreadable.
        speed: medians of the benchmark, where it was run on these products.
        speed_machine: what they were measured on.
        certificate: of the compression; empty: there was none.
    """

    history: History
    pictures: Sequence[Picture]
    samples: Samples
    data: DataCard
    grow: Mapping[str, Any]
    finetune: Mapping[str, Any]
    export: Mapping[str, Any]
    validate: Mapping[str, Any]
    sidecar: Mapping[str, Any]
    settings: Mapping[str, Any]
    data_settings: Mapping[str, Any]
    versions: Mapping[str, str]
    products: Sequence[Mapping[str, Any]] = ()
    connectivity: Mapping[str, Any] = field(default_factory=dict)
    drawing: str = ""
    speed: SpeedTable | None = None
    speed_machine: str = ""
    certificate: Mapping[str, Any] = field(default_factory=dict)


def render_page(data: PageData) -> str:
    """Return the page: no file, font or script is loaded from anywhere, all text is escaped.

    Raises:
        TinygrowError: a stage's figures lack an entry.
    """
    try:
        return _render(data)
    except (KeyError, UndefinedError) as error:
        raise TinygrowError(
            f"the figures of model {data.history.name!r} are not complete ({error}); run its"
            " stages again with this version (dvc repro)"
        ) from error


def _render(data: PageData) -> str:
    environment = Environment(
        loader=PackageLoader("tinygrow.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": numbers.count,
        "percent": numbers.percent,
        "size": numbers.size,
        "ms": numbers.milliseconds,
        "duration": numbers.duration,
        "plain": numbers.plain,
        "paths": paths_told,
        "whole": whole_told,
        "depths": depths_told,
        "inline": lambda svg: Markup(inline_svg(svg)),
        "png_uri": lambda png: "data:image/png;base64," + base64.b64encode(png).decode(),
    }
    checks = check_rows(data.validate)
    products = product_rows(data.products)
    return environment.get_template("page.html.j2").render(
        d=data,
        name=data.history.name,
        dark=Markup(dark_rules()),
        headline=headline(data.export, data.data, data.validate, data.settings),
        cards=_cards(data),
        accuracies=accuracy_rows(data.grow, data.finetune, data.export, data.validate, data.data),
        checks=checks,
        skipped=[c for c in checks if c.status == "skipped"],
        latencies=latency_rows(data.sidecar),
        products=products,
        product=next((row.name for row in products if row.published), "fp32"),
        compressed=_compression(data.certificate),
        machine=data.sidecar.get("machine", {}),
        widths=width_rows(data.history),
        shares=time_shares(data.history, data.finetune),
        settings=setting_rows(data.settings),
        data_settings=setting_rows(data.data_settings),
        shown=_shown(data.samples),
    )


def _compression(certificate: Mapping[str, Any]) -> dict[str, Any] | None:
    if not certificate:
        return None
    return {
        "summary": compression.summary(certificate),
        "layers": compression.layer_rows(certificate),
        "why": compression.why_no_more(certificate),
        "methods": sorted({unit["method"] for unit in certificate["units"]}),
    }


def _cards(data: PageData) -> list[Row]:
    latency = {e["batch"]: e for e in latency_rows(data.sidecar)}
    onnx = data.validate["checks"].get("accuracy", {}).get("numbers", {}).get("onnx")
    cards = [
        Row(
            "Test accuracy",
            numbers.percent(data.export["test_accuracy"]),
            f"PyTorch; ONNX Runtime {numbers.percent(onnx)}",
        ),
        Row("Parameters", numbers.count(data.export["parameters"]), "numbers in the file"),
        Row("Multiply-adds", numbers.count(data.export["multiply_adds"]), "for one image"),
        Row("File", numbers.size(data.export["file_bytes"]), "fp32.onnx, float32"),
    ]
    for batch in (1, 64):
        if entry := latency.get(batch):
            cards.append(
                Row(
                    f"Latency, {batch} image{'s' if batch > 1 else ''}",
                    numbers.milliseconds(entry["median_ms"]),
                    f"median on {entry['provider']};"
                    f" {numbers.count(entry['images_per_second'])} images/s",
                )
            )
    return cards


def _shown(samples: Samples) -> list[Sample]:
    """Return an even choice of the classes where there are many."""
    classes = samples.of_classes
    step = -(-len(classes) // _MOST_SHOWN)
    return list(classes[::step])
