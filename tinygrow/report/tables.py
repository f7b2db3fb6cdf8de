"""What the page says in words and tables, computed from the stages' figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tinygrow.data.prepared import DataCard
from tinygrow.errors import TinygrowError
from tinygrow.report import numbers
from tinygrow.report.history import History

_KINDS = {"resnet": "A residual network", "mlp": "A perceptron"}


@dataclass(frozen=True, slots=True)
class Row:
    """A name, a value, and what to know of it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One measured accuracy.

    Attributes:
        when: in the model's life.
        images: which, and how many.
        accuracy: in percent, formatted.
        use: what the figure was used for.
    """

    when: str
    images: str
    accuracy: str
    use: str


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One check of the gate; `status` is passed, failed or skipped."""

    name: str
    status: Literal["passed", "failed", "skipped"]
    numbers: tuple[tuple[str, str], ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRow:
    """One precision, in words.

    Attributes:
        name: fp32, fp16 or int8.
        published: whether the gate let it pass.
        size: of the file.
        accuracy: on the test images.
        agreement: share of them that get PyTorch's class.
        calibration: expected calibration error.
        latency: medians by batch size.
        reason: why it was refused; else empty.
    """

    name: str
    published: bool
    size: str
    accuracy: str
    agreement: str
    calibration: str
    latency: str
    reason: str


@dataclass(frozen=True, slots=True)
class Share:
    """Part of the time that one kind of work took."""

    name: str
    seconds: float
    percent: float
    note: str


def headline(
    export: Mapping[str, Any],
    data: DataCard,
    validate: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> str:
    """Return the one sentence that says what was built."""
    architecture = settings.get("architecture", {})  # or the name of a function that makes it
    kind = "A network"
    if isinstance(architecture, Mapping):
        kind = _KINDS.get(architecture.get("kind", ""), kind)
    verdict = "passed the gate" if validate["passed"] else "did NOT pass the gate"
    return (
        f"{kind} of {numbers.count(export['parameters'])} parameters that names"
        f" {numbers.percent(export['test_accuracy'])} of {numbers.count(data.counts['test'])}"
        f" unseen test images right ({len(data.classes)} classes). The ONNX file {verdict}."
    )


def accuracy_rows(
    grow: Mapping[str, Any],
    finetune: Mapping[str, Any],
    export: Mapping[str, Any],
    validate: Mapping[str, Any],
    data: DataCard,
) -> list[AccuracyRow]:
    """Return every accuracy with the images it was measured on."""
    validation = f"{numbers.count(data.counts['validation'])} validation images"
    test = f"{numbers.count(data.counts['test'])} test images"
    watched = "watched during the run"
    final = "final evaluation: no decision ever saw these images"
    checked = validate["checks"].get("accuracy", {}).get("numbers", {})
    percent = numbers.percent
    return [
        AccuracyRow("after growth", validation, percent(grow["validation_accuracy"]), watched),
        AccuracyRow(
            "after fine-tuning", validation, percent(finetune["validation_accuracy"]), watched
        ),
        AccuracyRow("final, PyTorch", test, percent(export["test_accuracy"]), final),
        AccuracyRow("final, ONNX Runtime", test, percent(checked.get("onnx")), final),
    ]


def check_rows(validate: Mapping[str, Any]) -> list[CheckRow]:
    """Return the gate's checks: the failed first, then in the gate's order.

    Raises:
        TinygrowError: the file is not what the validate stage writes.
    """
    rows = []
    try:
        for name, check in validate["checks"].items():
            status = str(check["status"]).lower()
            if status not in ("passed", "failed", "skipped"):
                raise TinygrowError(
                    f"check {name} has status {check['status']!r}; run the validate stage again"
                )
            measured = tuple((k, numbers.plain(v)) for k, v in check["numbers"].items())
            rows.append(CheckRow(name, status, measured, check["reason"]))  # type: ignore[arg-type]
    except (KeyError, AttributeError, TypeError) as error:
        raise TinygrowError(
            f"the gate's file is not complete ({error!r}); run the validate stage again"
        ) from error
    return sorted(rows, key=lambda r: r.status != "failed")


def product_rows(sidecars: Sequence[Mapping[str, Any]]) -> list[ProductRow]:
    """Return one row a precision, from the sidecars."""
    rows = []
    for told in sidecars:
        latency = {e["batch"]: numbers.milliseconds(e["median_ms"]) for e in told["latency"]}
        rows.append(
            ProductRow(
                name=told["precision"],
                published=bool(told["validated"]),
                size=numbers.size(told["bytes"]) if told["bytes"] else "",
                accuracy=numbers.percent(told["accuracy"].get("onnx")),
                agreement=numbers.percent(_times_100(told["agreement"].get("agreement"))),
                calibration=numbers.percent(_times_100(told["calibration"].get("onnx"))),
                latency=", ".join(f"{time} for {batch}" for batch, time in latency.items()),
                reason=told["reason"],
            )
        )
    return rows


def _times_100(share: float | None) -> float | None:
    return None if share is None else 100 * share


def latency_rows(sidecar: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the measured latencies, as the sidecar has them; none where the gate failed."""
    return list(sidecar.get("latency") or [])


def width_rows(history: History) -> list[tuple[str, int, int]]:
    """Return name, seed width and final width of every growable layer."""
    first, last = history.growth[0].widths, history.growth[-1].widths
    noun, numbers = history.layers
    names = [f"{noun} {number}" for number in numbers]
    return list(zip(names, first, last, strict=True))


def time_shares(history: History, finetune: Mapping[str, Any]) -> list[Share]:
    """Return where the time of growth and fine-tuning went, in the order of the work."""
    parts = (
        ("Statistics", history.total("seconds_statistics"), "second-order moments over images"),
        ("Solving", history.total("seconds_solve"), "the closed form of the new neurons"),
        ("Search", history.total("seconds_search"), "sign and amplitude"),
        ("Surgery", history.total("seconds_surgery"), "widening layers, measuring BatchNorm"),
        ("Training in growth", history.total("seconds_training"), "between the extensions"),
        ("Fine-tuning", float(finetune["seconds"]), "at full width"),
    )
    whole = sum(seconds for _, seconds, _ in parts)
    return [Share(n, s, 100 * s / whole if whole else 0.0, note) for n, s, note in parts]


def setting_rows(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as dotted names with their values."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += setting_rows(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", numbers.plain(value)))
    return rows
