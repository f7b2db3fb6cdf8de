"""Linear bounds (CROWN), taken backwards again from the slopes that a certificate ships.

With coefficients A on a value y, A y bounds a pre-activation from above. Operation by operation y
gives way to what it is made of: W x + b turns A into A W and adds A b; relu(z), for z in [l, u], is
at most d z + t with t = max(relu(l) - d l, relu(u) - d u), as relu(z) - d z is convex, and at least
d z + t with t the least of the two, and of 0 where l < 0 < u, where its only kink is. Any slope d
is sound, so that nothing shipped has to be believed. On the image the box ends it.

Rounding: what a computed A W is off by meets a value that is at most the size of its box, so that
the sum of |A| size over all operations, times 2 gamma_m with m above the number of terms of any of
these sums, covers all that was lost.
"""

import base64
import binascii
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygrow.certify.bounds import PASSING, Bounds, Box, gamma
from tinygrow.certify.document import Refusal, number, whole_number
from tinygrow.certify.graph import Graph, Operation
from tinygrow.certify.linear import AFFINE, linear_map

CLOSE = 1e-6  # shipped coefficients and ours, relative to the largest
_CHUNK = 2**23  # numbers of the coefficients that are held at once
MOST = 2**36  # multiply-adds for all lines: more are not recomputed


@dataclass(slots=True)
class Tightened:
    """What lines give, by the name of the value that they bound.

    Attributes:
        lower: of each value, of its shape; minus infinity where no line says anything.
        upper: likewise.
        checked: how many lines were recomputed.
        problems: lines that are not as claimed.
    """

    lower: dict[str, np.ndarray] = field(default_factory=dict)
    upper: dict[str, np.ndarray] = field(default_factory=dict)
    checked: int = 0
    problems: list[str] = field(default_factory=list)

    def pairs(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return lower and upper bounds of each value."""
        return {name: (self.lower[name], self.upper[name]) for name in self.lower}


@dataclass(frozen=True, slots=True)
class _Claim:
    unit: int
    position: int
    bound: float
    coefficients: np.ndarray | None


def check_lines(graph: Graph, image: str, bounds: Bounds, shipped: Mapping[str, Any]) -> Tightened:
    """Recompute the lines of a certificate.

    Args:
        graph: the network before.
        image: name of the normalised image.
        bounds: of its values, by intervals.
        shipped: slopes by the value that a ReLU reads, and lines in their order.

    Raises:
        Refusal: they are not of the form that they should be.
    """
    named = _named(graph)
    slopes = {
        named[name]: {side: _numbers(values.get(side), "<f4") for side in ("rising", "resting")}
        for name, values in shipped.get("slopes", {}).items()
        if name in named and isinstance(values, dict)
    }
    lines = shipped.get("lines", [])
    if not isinstance(lines, list):
        raise Refusal("the lines of the certificate are no list")
    result, work = Tightened(), 0
    for (name, side), claims in _batches(lines, named):
        box = bounds.boxes.get(named[name])
        if box is None:
            raise Refusal(f"nothing is known of the values of {name}")
        places = np.array([c.unit * box.lower[0].size + c.position for c in claims])
        if places.max() >= box.lower.size:
            raise Refusal(f"a line is of a number that {name} does not have")
        work += len(claims) * sum(b.lower.size for b in bounds.boxes.values()) * 32
        if work > MOST:
            raise Refusal("there are more lines than the checker recomputes")
        way = _Backward(graph, image, bounds, slopes, result)
        _take(result, way, named[name], side, claims, places, name)
    return result


def _batches(
    lines: list[Any], named: Mapping[str, str]
) -> list[tuple[tuple[str, str], list[_Claim]]]:
    """Return lines in their order, those that follow on one another of one value together."""
    result: list[tuple[tuple[str, str], list[_Claim]]] = []
    for line in lines:
        if not isinstance(line, dict) or line.get("layer") not in named:
            raise Refusal("a line is of no layer and no sum of the network")
        key = str(line["layer"]), str(line.get("side"))
        if key[1] not in ("upper", "lower"):
            raise Refusal(f"a line is neither upper nor lower, but {key[1][:40]!r}")
        claim = _Claim(
            whole_number(line.get("unit"), "unit of a line"),
            whole_number(line.get("position"), "position of a line"),
            number(line.get("bound"), "bound of a line"),
            _numbers(line["coefficients"], "<f8") if "coefficients" in line else None,
        )
        if not result or result[-1][0] != key:
            result.append((key, []))
        result[-1][1].append(claim)
    return result


def _take(
    result: Tightened,
    way: "_Backward",
    value: str,
    side: str,
    claims: list[_Claim],
    places: np.ndarray,
    name: str,
) -> None:
    """Recompute one batch, and keep its bounds."""
    sign = 1.0 if side == "upper" else -1.0
    box = way.bounds.boxes[value]
    lower = result.lower.setdefault(value, np.full(box.lower.shape, -np.inf)).reshape(-1)
    upper = result.upper.setdefault(value, np.full(box.lower.shape, np.inf)).reshape(-1)
    rows = max(1, _CHUNK // max(b.lower.size for b in way.bounds.boxes.values()))
    found = []
    for start in range(0, len(places), rows):
        part = slice(start, start + rows)
        ends, coefficients = way.run(value, places[part], sign)
        found.append(ends)
        for claim, own, end in zip(claims[part], sign * coefficients, sign * ends, strict=True):
            result.checked += 1
            scale = np.abs(own).max(initial=0.0)
            size = float(box.size.reshape(-1)[places[part]].max())
            if sign * (claim.bound - end) < -1e-9 * max(size, 1.0):
                result.problems.append(
                    f"{name}[{claim.unit}]: the line's bound {claim.bound:.9g} is tighter than"
                    f" {end:.9g}"
                )
            if claim.coefficients is not None and not (
                claim.coefficients.shape == own.shape
                and (np.abs(claim.coefficients - own) <= CLOSE * scale).all()
            ):
                result.problems.append(f"{name}[{claim.unit}]: the line has other coefficients")
    ends = np.concatenate(found)
    if side == "upper":
        np.minimum.at(upper, places, ends)
    else:
        np.maximum.at(lower, places, -ends)


class _Backward:
    """Upper bounds of some numbers of a value, or of their negatives."""

    def __init__(
        self,
        graph: Graph,
        image: str,
        bounds: Bounds,
        slopes: Mapping[str, Mapping[str, np.ndarray]],
        tightened: Tightened,
    ) -> None:
        self.graph, self.image, self.bounds = graph, image, bounds
        self.slopes, self.tightened = slopes, tightened
        self.on: dict[str, np.ndarray] = {}

    def run(self, value: str, places: np.ndarray, sign: float) -> tuple[np.ndarray, np.ndarray]:
        """Return bounds (n,), and coefficients on the image (n, C H W)."""
        box, count = self.bounds.boxes[value], len(places)
        start = np.zeros((count, box.lower.size))
        start[np.arange(count), places] = sign
        self.on = {value: start.reshape(count, *box.lower.shape)}
        self.constant, self.mass = np.zeros(count), np.zeros(count)
        most = 64 + len(self.graph.operations)
        for operation in reversed(self.graph.operations):
            if operation.output == self.image or operation.output not in self.on:
                continue
            coefficients = self.on.pop(operation.output)
            most = max(most, coefficients[0].size + 64 + len(self.graph.operations))
            self._through(operation, coefficients)
        image = self.bounds.boxes[self.image]
        last = self.on.pop(self.image, np.zeros((count, *image.lower.shape)))
        reach = np.maximum(last * image.lower, last * image.upper)
        self._weigh(last, np.maximum(np.abs(image.lower), np.abs(image.upper)))
        most = max(most, last[0].size + 64)
        ends = self.constant + reach.reshape(count, -1).sum(axis=1)
        ends = ends + 2 * gamma(most, 2.0**-53) * self.mass
        return np.where(np.isnan(ends), np.inf, ends), last.reshape(count, -1)

    def _through(self, operation: Operation, a: np.ndarray) -> None:
        data = [name for name in operation.inputs if name and name not in self.graph.weights]
        box = self.bounds.boxes[operation.output]
        if operation.kind in PASSING or operation.kind in ("Flatten", "Reshape"):
            self._hand(data[0], a.reshape(len(a), *self.bounds.boxes[data[0]].lower.shape))
        elif operation.kind == "Relu":
            self._relu(data[0], a)
        elif operation.kind == "Add" and len(data) == 2:
            self._hand(data[0], a)
            self._hand(data[1], a)
        elif operation.kind in AFFINE and np.isfinite(box.size).all():
            linear = linear_map(self.graph, operation, self.bounds.boxes[data[0]].lower.shape)
            self.constant += (a * linear.bias).reshape(len(a), -1).sum(axis=1)
            self._weigh(a, box.size)
            self._hand(data[0], linear.backward(a))
        else:
            self._end(box, a)

    def _relu(self, read: str, a: np.ndarray) -> None:
        low, high = self._ends(read)
        shipped = self.slopes.get(read, {})
        with np.errstate(all="ignore"):
            chord = np.where(high > low, high / (high - low), 1.0)
        on, off = low >= 0, high <= 0
        rising = np.where(on, 1.0, np.where(off | ~np.isfinite(chord), 0.0, chord))
        resting = np.where(on | ((high > -low) & ~off), 1.0, 0.0)
        if {"rising", "resting"} <= shipped.keys() and all(
            v.size == low.size for v in shipped.values()
        ):
            rising, resting = (
                shipped[s].reshape(low.shape).astype(np.float64) for s in ("rising", "resting")
            )
        ends = np.maximum(low, 0), np.maximum(high, 0)
        with np.errstate(invalid="ignore"):
            above = np.maximum(ends[0] - rising * low, ends[1] - rising * high)
            below = np.minimum(ends[0] - resting * low, ends[1] - resting * high)
        below = np.where((low < 0) & (high > 0), np.minimum(below, 0), below)
        above, below = (np.where(np.isnan(v), s, v) for v, s in ((above, np.inf), (below, -np.inf)))
        plus, minus = np.maximum(a, 0), np.minimum(a, 0)
        self.constant += _products(plus, above) + _products(minus, below)
        size = np.maximum(np.abs(low), np.abs(high)) * (4 + np.abs(rising) + np.abs(resting))
        self._weigh(a, size)
        self._hand(read, plus * rising + minus * resting)

    def _end(self, box: Box, a: np.ndarray) -> None:
        self.constant += _products(np.maximum(a, 0), box.upper)
        self.constant += _products(np.minimum(a, 0), box.lower)
        self._weigh(a, np.maximum(np.abs(box.lower), np.abs(box.upper)))

    def _ends(self, value: str) -> tuple[np.ndarray, np.ndarray]:
        box = self.bounds.boxes[value]
        lower, upper = box.lower, box.upper
        if value in self.tightened.lower:
            lower = np.maximum(lower, self.tightened.lower[value])
            upper = np.minimum(upper, self.tightened.upper[value])
        return lower, upper

    def _hand(self, value: str, a: np.ndarray) -> None:
        self.on[value] = self.on[value] + a if value in self.on else a

    def _weigh(self, a: np.ndarray, size: np.ndarray) -> None:
        self.mass += _products(np.abs(a), size)


def _products(a: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return row sums of products, in which 0 times infinity is 0."""
    if np.isfinite(values).all():
        return (a * values).reshape(len(a), -1).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(a == 0, 0.0, a * values).reshape(len(a), -1).sum(axis=1)


def _named(graph: Graph) -> dict[str, str]:
    """Return the value that each name of the certificate stands for.

    Layers have their module paths; sums of two values are `add`, `add_1`, ... in their order. A sum
    that is taken for another proves less, but nothing false.
    """
    named, count = {}, Counter[str]()
    for operation in graph.operations:
        path = graph.layer_of(operation)
        data = [name for name in operation.inputs if name and name not in graph.weights]
        if path is not None:
            named[path] = operation.output
        elif operation.kind == "Add" and len(data) == 2:
            named[f"add_{count['add']}" if count["add"] else "add"] = operation.output
            count["add"] += 1
    return named


def _numbers(text: Any, kind: str) -> np.ndarray:
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype=kind)
    except (binascii.Error, TypeError, ValueError) as error:
        raise Refusal("slopes or coefficients of a line are no numbers in base64") from error
    if not np.isfinite(values).all():
        raise Refusal("slopes or coefficients of a line are not finite")
    return values.astype(np.float64)
