"""The products that are made from the fp32 file, each as one file of its own."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from tinygrow.data.prepared import Split
from tinygrow.files import write_bytes
from tinygrow.observer import Observer
from tinygrow.products.graph import finish
from tinygrow.products.half import to_fp16
from tinygrow.products.pooling import pools_to_convolutions
from tinygrow.products.quantize import inferred, to_int8, units
from tinygrow.products.ranges import calibrate
from tinygrow.products.sensitivity import Choice, Judge, choose, logits_of
from tinygrow.settings.products import Precision, QuantizationSettings

# Enough to tell a loss of half a point from none; more would only take longer.
_JUDGED = 5000
_PROBED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The images that an int8 product is made with; none of them is a test image.

    Attributes:
        images: of training, uint8 (N, C, H, W): ranges and sensitivities.
        judged: of validation, likewise: budgets.
        labels: of the latter, int64 (N,).
    """

    images: NDArray[np.uint8]
    judged: NDArray[np.uint8]
    labels: NDArray[np.int64]


def choose_images(train: Split, validation: Split, count: int, seed: int) -> Calibration:
    """Return `count` training images, or all where there are fewer, and validation images.

    Args:
        train: split.
        validation: split; where it is empty, training images that are not chosen stand in, or all.
        count: for calibration.
        seed: of the choice.
    """
    order = np.random.default_rng(seed).permutation(len(train.images))
    chosen, rest = order[:count], order[count:]
    judge = validation
    indices = np.random.default_rng(seed).permutation(len(validation.images))[:_JUDGED]
    if len(indices) == 0:
        judge, indices = train, (rest if len(rest) else chosen)[:_JUDGED]
    return Calibration(
        images=train.images.numpy()[np.sort(chosen)],
        judged=judge.images.numpy()[np.sort(indices)],
        labels=judge.labels.numpy()[np.sort(indices)],
    )


def write_fp16(fp32: onnx.ModelProto, path: Path) -> None:
    """Write the fp16 product.

    Args:
        fp32: that product, as read from its file.
        path: of the new one.

    Raises:
        TinygrowError: the network cannot be converted.
    """
    write_bytes(path, finish(to_fp16(fp32), _metadata(fp32, "fp16")))


def write_int8(
    fp32: onnx.ModelProto,
    calibration: Calibration,
    settings: QuantizationSettings,
    path: Path,
    observer: Observer,
) -> None:
    """Write the int8 product, with what is known of its making in its metadata.

    Args:
        fp32: that product, as read from its file.
        calibration: images.
        settings: how it is made.
        path: of the new one.
        observer: told of progress and of what stays in float.

    Raises:
        TinygrowError: the network cannot be quantised, or not within the budgets.
    """
    choice, count = quantise(fp32, calibration, settings, observer)
    names = [unit.name for unit in choice.in_float]
    observer.say(
        f"int8: {count - len(names)} of {count} units quantised"
        + (f"; in float: {', '.join(names)}" if names else "")
    )
    told = {
        "format": "static QDQ, weights int8 per channel, activations uint8",
        "calibration": settings.calibration,
        "calibration_images": len(calibration.images),
        "weight_bits": 7 if settings.reduce_range else 8,
        "quantized_units": count - len(names),
        "float_units": names,
        "validation_images": len(calibration.judged),
        "validation_agreement": choice.agreement,
        "validation_accuracy_loss": choice.accuracy_loss,
    }
    metadata = _metadata(fp32, "int8") | {"quantization": json.dumps(told, ensure_ascii=False)}
    write_bytes(path, finish(choice.model, metadata))


def quantise(
    fp32: onnx.ModelProto,
    calibration: Calibration,
    settings: QuantizationSettings,
    observer: Observer,
) -> tuple[Choice, int]:
    """Return the quantised model with what was found of it, and how many units there are."""
    pooled = pools_to_convolutions(fp32)
    source, candidates = inferred(pooled), units(pooled)
    ranges = calibrate(source, calibration.images, settings, observer)
    probe = calibration.images[:_PROBED]
    judge = Judge(
        images=calibration.judged,
        labels=calibration.labels,
        logits=logits_of(fp32, calibration.judged),
    )
    choice = choose(
        lambda chosen: to_int8(source, ranges, chosen, reduce_range=settings.reduce_range),
        candidates,
        judge,
        (probe, logits_of(fp32, probe)),
        settings,
        observer,
    )
    return choice, len(candidates)


def _metadata(fp32: onnx.ModelProto, precision: Precision) -> dict[str, str]:
    """Return the entries of the file that it is made from, with its own precision."""
    found = {entry.key: entry.value for entry in fp32.metadata_props if entry.key != "digest"}
    return {**found, "precision": precision}
