"""Interval bounds of every value of a graph, position by position, in float64.

For y = W x + b with l <= x <= u, and W split into positive and negative parts,

    W+ l + W- u + b <= y <= W+ u + W- l + b.

A computed sum of n products is off by at most gamma_m S in whatever order it is summed, with S the
sum of absolute products and bias, m = n + 2 and gamma_m = m v / (1 - m v), v = 2^-53 (Higham,
*Accuracy and Stability of Numerical Algorithms*, section 3.1). S is itself computed, and the error
is added with one more rounding: 2 gamma_(n + 8) S covers all of it. Where S is 0, y is exactly b.
Bounds that are not 0 are kept at least 1e-200 away from it, so that no product of one with a
float32 weight underflows.

`drift` bounds how far float32 evaluation, in any order of summation, strays from real arithmetic:
|W| d + gamma_(n + 2) (|W| (|x| + d) + |b|) + n 2^-126 with v = 2^-24 for inputs that are off by d.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tinygrow.certify.document import Refusal
from tinygrow.certify.graph import Graph, Operation
from tinygrow.certify.linear import AFFINE, LinearMap, constant_of, linear_map, require_flat
from tinygrow.certify.windows import windows_of

LEAST = 1e-200
PASSING = ("Identity", "Dropout")
Tightened = Mapping[str, tuple[np.ndarray, np.ndarray]]
_NONE: Tightened = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Box:
    """Bounds of one value, all float64 and of its shape without the batch.

    Attributes:
        lower: infinite where nothing is known.
        upper: likewise.
        drift: of float32 from real arithmetic, at most.
        size: sum of absolute products and bias behind each number, at most: the scale of rounding.
    """

    lower: np.ndarray
    upper: np.ndarray
    drift: np.ndarray
    size: np.ndarray

    def channels(self) -> "Box":
        """Return it as (channels, positions)."""
        return self._each(lambda a: a.reshape(len(a), -1))

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Box":
        return Box(change(self.lower), change(self.upper), change(self.drift), change(self.size))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of the values of a graph.

    Attributes:
        boxes: by name of the value; none of what has an unknown shape.
        notes: operations that are unknown, in words.
    """

    boxes: Mapping[str, Box]
    notes: tuple[str, ...]


def input_box(graph: Graph) -> tuple[str, Box, np.ndarray, np.ndarray]:
    """Return the name and bounds of the normalised image, and the scale and shift behind it.

    The graph must begin with Cast, Mul and Add of one number a channel. Products and sums in
    float32 are monotone, so all normalised uint8 images lie between the values of 0 and 255,
    rounded once, twice or not at all.

    Raises:
        Refusal: it begins otherwise.
    """
    name, found = graph.input, []
    for kind in ("Cast", "Mul", "Add"):
        readers = graph.readers(name)
        if len(readers) != 1 or readers[0].kind != kind:
            raise Refusal("the graph does not begin with Cast, Mul and Add of a uint8 image")
        found.append(readers[0])
        name = readers[0].output
    if found[0].attributes.get("to") != 1:
        raise Refusal("the image is not cast to float32")
    channels = (1, graph.shape[0], 1, 1)
    pair = [constant_of(graph, node) for node in found[1:]]
    if any(value.shape != channels or value.dtype != np.float32 for value in pair):
        raise Refusal("the normalisation is not one number a channel")
    scale, shift = (value.reshape(-1) for value in pair)
    ends = []
    for pixel in (np.float32(0), np.float32(255)):
        exact = np.float64(pixel) * scale.astype(np.float64) + shift
        ends += [exact, exact.astype(np.float32), pixel * scale + shift]
    lower = np.nextafter(np.min(ends, axis=0).astype(np.float64), -np.inf)
    upper = np.nextafter(np.max(ends, axis=0).astype(np.float64), np.inf)
    lower = np.where(np.min(ends, axis=0) == shift, shift, lower)  # pixel 0: nothing is rounded
    full = [np.broadcast_to(v[:, None, None], graph.shape).copy() for v in (lower, upper)]
    zero = np.zeros(graph.shape)
    return name, Box(full[0], full[1], zero, np.maximum(*map(np.abs, full))), scale, shift


def propagate(graph: Graph, start: Mapping[str, Box], tightened: Tightened = _NONE) -> Bounds:
    """Return bounds of every value behind those that are given.

    Args:
        graph: the network.
        start: boxes of the values to begin at.
        tightened: by the name of a value, lower and upper bounds of its shape that hold as well.
    """
    boxes, notes = dict(start), []
    for operation in graph.operations:
        data = [name for name in operation.inputs if name and name not in graph.weights]
        if operation.output in boxes or not all(name in boxes for name in data):
            continue
        try:
            box = _box(graph, operation, [boxes[name] for name in data])
        except Refusal as unknown:
            notes.append(f"{operation.output}: {unknown}; nothing behind it is known")
            continue
        if operation.output in tightened:
            lower, upper = tightened[operation.output]
            box = Box(
                np.maximum(box.lower, lower), np.minimum(box.upper, upper), box.drift, box.size
            )
        boxes[operation.output] = box
    return Bounds(boxes, tuple(notes))


def _box(graph: Graph, operation: Operation, data: list[Box]) -> Box:
    kind = operation.kind
    if kind in PASSING and len(data) == 1:
        return data[0]
    if kind == "Relu":
        return _relu(data[0])
    if kind == "Add" and len(data) == 2:
        return _sum(data[0], data[1])
    if kind in AFFINE and len(data) == 1:
        return affine(linear_map(graph, operation, data[0].lower.shape), data[0])
    if kind == "MaxPool":
        windows, shape = windows_of(operation), data[0].lower.shape
        sides = windows.out_sides((shape[1], shape[2]))
        return data[0]._each(
            lambda a: windows.unfold(a, -np.inf).max(axis=1).reshape(len(a), *sides)
        )
    if kind in ("Flatten", "Reshape"):
        require_flat(graph, operation, data[0].lower.shape)
        return data[0]._each(lambda a: a.reshape(-1))
    raise Refusal(f"the operation {kind} is not known to the checker")


def affine(linear: LinearMap, x: Box) -> Box:
    """Return the bounds behind an affine operation."""
    low, high = _apart(x.lower, down=True), _apart(x.upper, down=False)
    bias, size_of_bias = linear.bias, np.abs(linear.bias)
    reads = linear.forward(np.ones(x.lower.shape), "absolute") > 0
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        endless = np.where(reads, np.inf, 0.0)
        return Box(bias - endless, bias + endless, endless, size_of_bias + endless)
    largest = np.maximum(np.abs(low), np.abs(high))
    forward = linear.forward
    error_factor = 2 * gamma(linear.terms + 8, 2.0**-53)
    ends = []
    for first, second, sign in ((low, high, -1.0), (high, low, 1.0)):
        value = forward(first, "positive") + forward(second, "negative")
        plus, minus = np.abs(first), np.abs(second)
        if (first >= 0).all() and (second >= 0).all():
            size = forward(first, "positive") - forward(second, "negative")
        else:
            size = forward(plus, "positive") - forward(minus, "negative")
        error = np.where(size > 0, error_factor * (size + size_of_bias), 0.0)
        ends.append(value + bias + sign * error)
    size = forward(largest, "absolute")
    moved = forward(x.drift, "absolute")
    rounding = gamma(linear.terms + 2, 2.0**-24) * (size + moved + size_of_bias)
    drift = np.where(
        size + moved > 0, 1.000001 * (moved + rounding) + linear.terms * 2.0**-126, 0.0
    )
    return Box(ends[0], ends[1], drift, size + size_of_bias)


def _relu(x: Box) -> Box:
    silent = x.upper + x.drift <= 0  # in float32 as well
    return Box(
        np.maximum(x.lower, 0), np.maximum(x.upper, 0), np.where(silent, 0.0, x.drift), x.size
    )


def _sum(one: Box, other: Box) -> Box:
    if one.lower.shape != other.lower.shape:
        raise Refusal("an Add of two shapes is not known to the checker")
    lower, upper = one.lower + other.lower, one.upper + other.upper
    largest = [np.maximum(np.abs(b.lower), np.abs(b.upper)) for b in (one, other)]
    size, drift = largest[0] + largest[1], one.drift + other.drift
    return Box(
        np.where(_exact(one.lower, other.lower), lower, np.nextafter(lower, -np.inf)),
        np.where(_exact(one.upper, other.upper), upper, np.nextafter(upper, np.inf)),
        np.where(size + drift > 0, 1.000001 * (drift + 2.0**-24 * (size + drift)), 0.0),
        size,
    )


def _exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Say where a + b is rounded to itself (Knuth's sum of two numbers)."""
    with np.errstate(invalid="ignore"):
        total = a + b
        part = total - a
        return (a - (total - part)) + (b - part) == 0


def _apart(bound: np.ndarray, *, down: bool) -> np.ndarray:
    """Move bounds that are nearly 0 outward, to 0 or to 1e-200 from it."""
    near = np.abs(bound) < LEAST
    moved = np.where(bound < 0, -LEAST, 0.0) if down else np.where(bound > 0, LEAST, 0.0)
    return np.where(near, moved, bound)


def gamma(terms: int, unit: float) -> float:
    """Return gamma_n; infinity where it is not defined."""
    return terms * unit / (1 - terms * unit) if terms * unit < 1 else np.inf
