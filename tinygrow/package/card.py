"""The model card: what the files, their sidecars and the logs say, and nothing else."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygrow.benchmark.document import cells_of, machine_line, speed_table
from tinygrow.data.prepared import DataCard
from tinygrow.deploy.published import Published
from tinygrow.package.render import render
from tinygrow.report import numbers
from tinygrow.report.history import ExtensionRow, History

_KINDS = {
    "fp32": "float32",
    "fp16": "float16 inside, float32 logits",
    "int8": "8-bit integers inside, float32 logits",
}
_MACHINE = ("processor", "gpu", "threads", "load_before", "onnxruntime-gpu", "onnxruntime", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class CardData:
    """All that a card tells.

    Attributes:
        model: its name.
        products: published, the best known first.
        facts: metadata of the first product's file (`contract.KEYS`).
        data: card of the data set.
        history: tables of growth and fine-tuning.
        refused: reason of each precision that the gate refused.
        benchmark: what `benchmark` wrote; None where it never ran.
        licence: SPDX name that the user gave, or nothing.
    """

    model: str
    products: Sequence[Published]
    facts: Mapping[str, str]
    data: DataCard
    history: History
    refused: Mapping[str, str] = field(default_factory=dict)
    benchmark: Mapping[str, Any] | None = None
    licence: str = ""


def model_card(card: CardData) -> str:
    """Return README.md with Hugging Face's front matter.

    Raises:
        TinygrowError: a figure is missing.
    """
    versions = json.loads(card.facts["versions"])
    return render(
        "card.md.j2",
        c=card,
        kinds=_KINDS,
        precisions=[product.precision for product in card.products],
        licence=card.licence,
        origin=_origin(card),
        share=lambda checked: _or_absent(checked.get("agreement"), lambda x: f"{100 * x:.2f} %"),
        ece=lambda checked: _or_absent(checked.get("onnx"), lambda x: f"{x:.4f}"),
        interval=_interval(card),
        compression=_compression(card),
        growth=_growth(card),
        sweeps=_sweeps(card.history),
        finetuning=_finetuning(card),
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        **_speed(card),
    )


def wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval of a share seen in `count` draws (Wilson 1927)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    half *= z / (1 + z * z / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _interval(card: CardData) -> str:
    share = float(card.products[0].sidecar["accuracy"]["onnx"]) / 100
    low, high = wilson(share, card.data.counts["test"])
    return f"{100 * low:.2f} to {100 * high:.2f} %"


def _compression(card: CardData) -> list[str]:
    """Return what is claimed of each product beside the network before compression."""
    told = [(p.precision, p.sidecar.get("compression", {})) for p in card.products]
    lines = [f"`{precision}.onnx` is {found['said']}." for precision, found in told if found]
    if lines:
        removed = next(found["removed"] for _, found in told if found)
        lines.insert(0, f"Compression removed {numbers.count(removed)} units.")
    return lines


def _origin(card: CardData) -> str:
    if not card.history.extensions:
        return "a network of fixed size, trained as it is."
    first, last = card.history.growth[0], card.history.growth[-1]
    return (
        f"grown from a seed of {numbers.count(first.parameters)} parameters to"
        f" {numbers.count(last.parameters)}, then trained at full width."
    )


def _growth(card: CardData) -> str:
    notes = json.loads(card.facts["growth"])
    if not card.history.extensions:
        return "No layer grew."
    growth = notes.get("growth", {})
    method = growth.get("method", "")
    added = f" with new neurons of the method `{method}`" if method else ""
    seed = f", seed {notes['seed']}" if "seed" in notes else ""
    count = len(card.history.extensions)
    return (
        f"In {count} extensions{added}{seed}. Validation accuracy is that of the moment; training"
        " went on between and after."
    )


def _sweeps(history: History) -> list[tuple[str, ExtensionRow]]:
    """Return the seed and the network after the last extension of each sweep."""
    last: dict[int, ExtensionRow] = {}
    for row in history.extensions:
        if row.sweep:
            last[row.sweep] = row
    rows = [(f"sweep {sweep}", row) for sweep, row in sorted(last.items())]
    return [("seed", history.growth[0]), *rows] if rows else []


def _finetuning(card: CardData) -> str:
    rows = card.history.finetuning
    if not rows or rows[-1].epoch == 0:
        return "It was not fine-tuned: the model is as growth left it."
    return (
        f"Fine-tuning: {numbers.count(rows[-1].epoch)} epochs at full width, validation accuracy"
        f" {numbers.percent(rows[0].validation_accuracy)} to"
        f" {numbers.percent(rows[-1].validation_accuracy)}."
    )


def _speed(card: CardData) -> dict[str, Any]:
    """Return the figures of the benchmark, or else those of the gate."""
    checksums = {product.precision: product.sha256 for product in card.products}
    if card.benchmark is not None and (cells := cells_of(card.benchmark, checksums)):
        machine = {k: v for k, v in card.benchmark["machine"].items() if k in _MACHINE}
        note = " PyTorch runs the network as trained, in float32."
        return _told(cells, machine, note)
    cells = [
        {"engine": "onnxruntime", "variant": product.precision, "device": one["provider"], **one}
        | {"p50_ms": one["median_ms"]}
        for product in card.products
        for one in product.sidecar.get("latency", [])
    ]
    return _told(cells, card.products[0].sidecar.get("machine", {}), "")


def _told(
    cells: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], note: str
) -> dict[str, Any]:
    return {"speed": speed_table(cells), "machine": f"Machine: {machine_line(machine)}.{note}"}


def _or_absent(value: float | None, form: Any) -> str:
    return numbers.ABSENT if value is None else str(form(value))
