"""Which layers of an int8 product stay in float: the fewest, most sensitive first, that suffice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from tinygrow.deploy.contract import INPUT, OUTPUT
from tinygrow.deploy.sessions import open_session
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.products.quantize import Unit
from tinygrow.products.quiet import failures_of
from tinygrow.products.reference import accuracy
from tinygrow.settings.products import QuantizationSettings

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]
Make = Callable[[Sequence[Unit]], onnx.ModelProto]

_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Images that tell how much a quantised model loses.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        logits: of the fp32 product, float32 (N, classes).
    """

    images: Images
    labels: NDArray[np.int64]
    logits: Logits

    def agreement(self, logits: Logits) -> float:
        """Return the share of images that get the class of fp32."""
        return float(np.mean(logits.argmax(1) == self.logits.argmax(1)))

    def accuracy_loss(self, logits: Logits) -> float:
        """Return what is lost of the accuracy of fp32, in percentage points."""
        return accuracy(self.logits, self.labels) - accuracy(logits, self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A quantised model, what stayed in float, and what the judge found.

    Attributes:
        model: the int8 product.
        in_float: units that were left, most sensitive first.
        agreement: with fp32 on the judge's images, from 0 to 1.
        accuracy_loss: in percentage points.
    """

    model: onnx.ModelProto
    in_float: tuple[Unit, ...]
    agreement: float
    accuracy_loss: float


def choose(
    make: Make,
    units: Sequence[Unit],
    judge: Judge,
    probe: tuple[Images, Logits],
    settings: QuantizationSettings,
    observer: Observer,
) -> Choice:
    """Quantise all; where that misses a budget, leave the most sensitive units in float.

    A unit's sensitivity is the mean squared error of the logits when it alone is quantised.

    Args:
        make: returns the model with the given units quantised.
        units: that may be quantised.
        judge: of budgets; its images are not the probe's.
        probe: training images and the fp32 product's logits of them, for sensitivities.
        settings: budgets and policy.
        observer: told of the outcome.

    Raises:
        TinygrowError: budgets are missed with all units but one in float.
    """
    choice = _try(make, units, (), judge)
    if settings.keep_float == "none" or _holds(choice, settings, len(judge.images)):
        return choice
    observer.say(f"int8: {_told(choice)} with all {len(units)} units quantised; searching")
    images, right = probe
    errors = [float(np.mean((logits_of(make([u]), images) - right) ** 2)) for u in units]
    order = [units[i] for i in np.argsort(np.negative(errors), kind="stable")]
    for count in _counts(len(units)):
        choice = _try(make, units, order[:count], judge)
        if _holds(choice, settings, len(judge.images)):
            return choice
    raise TinygrowError(
        f"int8 misses its budgets on validation images ({_told(choice)}) even with"
        f" {len(choice.in_float)} of {len(units)} units in float; relax export.int8 or leave int8"
        " out of export.precisions"
    )


def logits_of(model: onnx.ModelProto, images: Images) -> Logits:
    """Return a model's logits (N, classes), by one thread, so that they hang on no machine's."""
    session = open_session(model.SerializeToString(), "cpu", threads=1)
    with failures_of("int8"):
        parts = [
            session.run([OUTPUT], {INPUT: np.ascontiguousarray(images[start : start + _BATCH])})[0]
            for start in range(0, len(images), _BATCH)
        ]
    return np.concatenate(parts)


def _counts(units: int) -> list[int]:
    """Return how many units are tried in float: each by a third more than the last, never all."""
    counts, count = [], 1
    while count < units:
        counts.append(count)
        count = max(count + 1, count * 4 // 3)
    return counts


def _try(make: Make, units: Sequence[Unit], left: Sequence[Unit], judge: Judge) -> Choice:
    model = make([unit for unit in units if unit not in left])
    logits = logits_of(model, judge.images)
    return Choice(
        model=model,
        in_float=tuple(left),
        agreement=judge.agreement(logits),
        accuracy_loss=judge.accuracy_loss(logits),
    )


def _holds(choice: Choice, settings: QuantizationSettings, images: int) -> bool:
    """Say whether the budgets hold, the agreement with one standard error of so few images off."""
    error = (choice.agreement * (1 - choice.agreement) / images) ** 0.5
    return (
        choice.agreement - error >= settings.min_agreement
        and choice.accuracy_loss <= settings.max_accuracy_loss + 1e-9
    )


def _told(choice: Choice) -> str:
    return (
        f"{choice.agreement:.4f} of the classes agree,"
        f" {choice.accuracy_loss:+.2f} points of accuracy lost"
    )
