"""Interval bounds of every number of a program, in float64 with an outward error term.

Each operation is bounded by itself from the bounds of what it reads, position by position; the
zeros of a padding are zeros. On the first layer, a linear function on a box, that is exact up to
the error term. Beside the bounds of real arithmetic goes the drift: how far float32 may stray from
it, in any order of summation (exact_compression.md, section 6, pitfall 6).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tinygrow.stability.linear_maps import Affine, linear_map, maximum, offset, terms
from tinygrow.stability.program import (
    Add,
    AveragePool,
    Convolution,
    Flatten,
    Input,
    Linear,
    MaxPool,
    Node,
    Program,
    ReLU,
    ScaleAndShift,
)
from tinygrow.stability.rounding import (
    UNDERFLOW32,
    UNIT32,
    away_from_zero,
    down,
    gamma,
    outward64,
    up,
)

_ABOVE = 1 + 1e-9  # the drift is itself summed in float64


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of what one node gives, all float64 and of its shape.

    Attributes:
        lower: bound, in real arithmetic; minus infinity where none is known.
        upper: bound.
        drift: the most by which a value in float32 differs from the real one.
        size: sum of the absolute products and bias behind each number, at most; what float64
            rounding is measured by.
    """

    lower: torch.Tensor
    upper: torch.Tensor
    drift: torch.Tensor
    size: torch.Tensor

    @property
    def magnitude(self) -> torch.Tensor:
        """Return the greatest absolute value that is possible."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def within(self, lower: torch.Tensor, upper: torch.Tensor) -> "Bounds":
        """Return the bounds intersected with others."""
        return Bounds(
            torch.maximum(self.lower, lower),
            torch.minimum(self.upper, upper),
            self.drift,
            self.size,
        )


def interval_bounds(program: Program) -> Mapping[str, Bounds]:
    """Return the bounds of every node, by its name.

    Behind an operation that is not supported they are infinite, but for what does not hang on its
    values: channels whose weights are all zero.
    """
    found: dict[str, Bounds] = {}
    with torch.no_grad():
        for node in program.nodes:
            found[node.name] = _bounds(node, [found[name] for name in node.inputs])
    return found


def _bounds(node: Node, read: list[Bounds]) -> Bounds:
    if isinstance(node, Input):
        lower, upper = (v.reshape(-1, 1, 1).expand(node.shape) for v in (node.lower, node.upper))
        zero = torch.zeros(node.shape, dtype=torch.float64)
        # What is proved is about the float32 values of the normalised image: no drift yet.
        return Bounds(lower, upper, zero, torch.maximum(lower.abs(), upper.abs()))
    if isinstance(node, Convolution | Linear | ScaleAndShift | AveragePool):
        return _affine(node, read[0])
    if isinstance(node, ReLU):
        return _relu(read[0])
    if isinstance(node, Add):
        return _add(*read)
    if isinstance(node, Flatten):
        b = read[0]
        return Bounds(b.lower.flatten(), b.upper.flatten(), b.drift.flatten(), b.size.flatten())
    if isinstance(node, MaxPool):
        b = read[0]
        values = (maximum(node, v[None])[0] for v in (b.lower, b.upper, b.drift, b.size))
        return Bounds(*values)
    endless = torch.full(node.shape, torch.inf, dtype=torch.float64)
    return Bounds(-endless, endless, endless, endless)


def _affine(node: Affine, read: Bounds) -> Bounds:
    endless = ~(read.magnitude.isfinite() & read.drift.isfinite())
    if endless.any():
        return _partly_endless(node, read, endless)
    centre = (read.lower + read.upper) / 2
    radius = up(torch.maximum(read.upper - centre, centre - read.lower)).clamp(min=0)
    radius = torch.where(read.lower == read.upper, torch.zeros_like(radius), radius)
    size = away_from_zero(centre.abs() + radius)
    signed, absolute = (linear_map(node, torch.float64, absolute=a) for a in (False, True))
    middle = signed(centre[None])[0]
    reach, sums, drift = absolute(torch.stack([radius, size, read.drift]))
    bias = offset(node, torch.float64)
    count = terms(node, tuple(read.lower.shape))
    error = outward64(count) * (sums + bias.abs())
    error = torch.where(sums > 0, error, torch.zeros_like(error))  # a bias alone is exact
    middle = middle + bias
    single = gamma(count + 1, UNIT32) * (sums + drift + bias.abs()) + count * UNDERFLOW32
    drift = torch.where(sums + drift > 0, (drift + single) * _ABOVE, torch.zeros_like(drift))
    return Bounds(
        torch.where(error > 0, down(middle - reach - error), middle),
        torch.where(error > 0, up(middle + reach + error), middle),
        drift,
        sums + bias.abs(),
    )


def _partly_endless(node: Affine, read: Bounds, endless: torch.Tensor) -> Bounds:
    """Bound what reads none of the numbers that have no bounds, and leave the rest endless."""
    rest = (v.masked_fill(endless, 0) for v in (read.lower, read.upper, read.drift, read.size))
    found = _affine(node, Bounds(*rest))
    touched = linear_map(node, torch.float64, absolute=True)(endless.double()[None])[0] > 0
    ends = (found.lower, -torch.inf), (found.upper, torch.inf)
    others = (found.drift, torch.inf), (found.size, torch.inf)
    return Bounds(*(v.masked_fill(touched, end) for v, end in (*ends, *others)))


def _relu(read: Bounds) -> Bounds:
    silent = read.upper + read.drift <= 0  # in float32 as well
    drift = torch.where(silent, torch.zeros_like(read.drift), read.drift)
    return Bounds(read.lower.clamp(min=0), read.upper.clamp(min=0), drift, read.size)


def _add(one: Bounds, other: Bounds) -> Bounds:
    lower, upper = one.lower + other.lower, one.upper + other.upper
    size = one.magnitude + other.magnitude
    drift = one.drift + other.drift
    rounded = torch.where(size + drift > 0, UNIT32 * (size + drift), torch.zeros_like(size))
    return Bounds(
        torch.where(size > 0, down(lower), lower),
        torch.where(size > 0, up(upper), upper),
        (drift + rounded) * _ABOVE,
        size,
    )
