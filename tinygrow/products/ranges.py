"""The ranges of activations over calibration images: what an int8 product's scales come from."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from tinygrow.deploy.contract import INPUT
from tinygrow.deploy.sessions import open_session
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.products.quiet import failures_of, onnxruntime_tools
from tinygrow.settings.products import QuantizationSettings

Range = tuple[float, float]

_BATCH = 16
_BINS = 2048
# The search for the entropy's threshold takes time with the square of the bins.
_ENTROPY_BINS = 512
_ENTROPY_LEVELS = 128
_DIGITS = 10


def calibrate(
    model: onnx.ModelProto,
    images: NDArray[np.uint8],
    settings: QuantizationSettings,
    observer: Observer,
) -> dict[str, Range]:
    """Return the lowest and highest value of every float activation, by its name.

    One thread computes them, and they are rounded outwards to 10 binary digits: another number of
    threads or another processor, which adds in another order, gives the same file.

    Args:
        model: the fp32 product, with the types that shape inference finds.
        images: uint8 (N, C, H, W).
        settings: which part of the values counts.
        observer: told of the progress.

    Raises:
        TinygrowError: an activation is not finite, or the model does not run.
    """
    names = _activations(model)
    session = open_session(_exposed(model, names), "cpu", threads=1)
    found: dict[str, Range] = {}
    for name, values in _batches(session, names, images, observer):
        low, high = found.get(name, (np.inf, -np.inf))
        found[name] = (min(low, float(values.min())), max(high, float(values.max())))
    for name, limits in found.items():
        if not np.isfinite(limits).all():
            raise TinygrowError(
                f"activation {name!r} is not finite on the calibration images; leave int8 out of"
                " export.precisions"
            )
    if settings.calibration != "minmax":
        found = _cut(session, found, images, settings, observer)
    return {name: (_outwards(low), _outwards(high)) for name, (low, high) in found.items()}


def _activations(model: onnx.ModelProto) -> list[str]:
    floats = {
        value.name
        for value in (*model.graph.value_info, *model.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    return [name for node in model.graph.node for name in node.output if name in floats]


def _exposed(model: onnx.ModelProto, names: list[str]) -> bytes:
    """Return the file with every activation among its outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    given = {value.name for value in copy.graph.output}
    copy.graph.output.extend(v for v in model.graph.value_info if v.name in {*names} - given)
    return copy.SerializeToString()


def _batches(
    session: ort.InferenceSession,
    names: list[str],
    images: NDArray[np.uint8],
    observer: Observer,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    with observer.work("calibration", len(images), "images"):
        for start in range(0, len(images), _BATCH):
            batch = np.ascontiguousarray(images[start : start + _BATCH])
            with failures_of("int8"):
                found = session.run(names, {INPUT: batch})
            yield from zip(names, found, strict=True)
            observer.advance(len(batch))


def _cut(
    session: ort.InferenceSession,
    found: dict[str, Range],
    images: NDArray[np.uint8],
    settings: QuantizationSettings,
    observer: Observer,
) -> dict[str, Range]:
    """Return ranges without the tails of the values, from a second look at the images."""
    bins = _BINS if settings.calibration == "percentile" else _ENTROPY_BINS
    limits = {name: max(abs(low), abs(high)) or 1.0 for name, (low, high) in found.items()}
    counts = {name: np.zeros(bins, np.int64) for name in found}
    for name, values in _batches(session, list(found), images, observer):
        counts[name] += np.histogram(values, bins, (-limits[name], limits[name]))[0]
    result = {}
    for name, (low, high) in found.items():
        edges = np.linspace(-limits[name], limits[name], bins + 1).astype(np.float32)
        if settings.calibration == "percentile":
            cut = _percentile(counts[name], edges, settings.percentile)
        else:
            cut = _entropy(counts[name], edges)
        result[name] = (max(low, cut[0]), min(high, cut[1]))
    return result


def _percentile(counts: NDArray[np.int64], edges: NDArray[np.float32], percent: float) -> Range:
    """Return the range that leaves half of the rest out at either end."""
    share = np.cumsum(counts) / counts.sum()
    outside = (1 - percent / 100) / 2
    first = int(np.searchsorted(share, outside, side="right"))
    last = int(np.searchsorted(share, 1 - outside))
    return float(edges[first]), float(edges[min(last, len(counts) - 1) + 1])


def _entropy(counts: NDArray[np.int64], edges: NDArray[np.float32]) -> Range:
    """Return the range whose 8-bit values tell most of the distribution, as TensorRT chooses it."""
    with onnxruntime_tools():
        from onnxruntime.quantization.calibrate import HistogramCollector

        collector = HistogramCollector("entropy", False, len(counts), _ENTROPY_LEVELS, 100, "same")
        low, high = collector.get_entropy_threshold(
            (counts, edges, edges[0], edges[-1], edges[-1]), _ENTROPY_LEVELS
        )
    return float(low), float(high)


def _outwards(value: float) -> float:
    """Round away from zero to 10 binary digits."""
    fraction, exponent = np.frexp(abs(value))
    return float(
        np.sign(value) * np.ldexp(np.ceil(np.ldexp(fraction, _DIGITS)), exponent - _DIGITS)
    )
