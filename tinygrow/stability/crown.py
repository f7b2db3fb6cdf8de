"""Linear bounds, found backwards through the program (CROWN; exact_compression.md 4.2).

A linear function of a node's numbers bounds a pre-activation; node by node it is turned into one of
the numbers before, ReLUs by lines above and below them, until it is one of the image, which the box
bounds at once. Unlike intervals it sees where terms cancel over several layers. `Line` says how to
check one. Coefficients are float64 and taken as they are; what their rounding may have lost is
measured by the sizes of the interval bounds and joins the constant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from tinygrow.stability.found import Slopes
from tinygrow.stability.interval import Bounds
from tinygrow.stability.linear_maps import Affine, linear_map, offset
from tinygrow.stability.program import (
    Add,
    AveragePool,
    Convolution,
    Flatten,
    Linear,
    Node,
    Program,
    ReLU,
    ScaleAndShift,
)
from tinygrow.stability.rounding import outward64, up

Side = Literal["upper", "lower"]
# Numbers of the coefficients of one chunk of bounds, float64.
_CHUNK = 2**23


@dataclass(frozen=True, slots=True)
class Lines:
    """Linear bounds on some numbers of a node.

    Attributes:
        coefficients: on the image, float64 (T, C H W).
        constants: float64 (T,).
        bounds: of the lines on the box, float64 (T,), outward.
    """

    coefficients: torch.Tensor
    constants: torch.Tensor
    bounds: torch.Tensor


def slopes_of(bounds: Bounds) -> Slopes:
    """Return the usual slopes of a ReLU: the chord above it; below it, 0 or 1 by the longer side.

    Args:
        bounds: of the number that it reads.
    """
    lower, upper = bounds.lower.flatten(), bounds.upper.flatten()
    chord = torch.where(upper > lower, upper / (upper - lower), torch.ones_like(upper))
    on, off = lower >= 0, upper <= 0
    endless = ~(lower.isfinite() & upper.isfinite())
    rising = torch.where(on, 1.0, torch.where(off | endless, 0.0, chord))
    resting = torch.where(on | ((upper > -lower) & ~off & ~endless), 1.0, 0.0)
    return Slopes(rising.float(), resting.float())


def backward_lines(
    program: Program,
    bounds: Mapping[str, Bounds],
    slopes: Mapping[str, Slopes],
    target: str,
    flat: torch.Tensor,
    side: Side,
) -> Lines:
    """Bound some numbers of a node.

    Args:
        program: that is searched.
        bounds: of all nodes; those that ReLUs read may be tighter than intervals.
        slopes: of the ReLUs, by the name of the node that they read.
        target: name of the node.
        flat: int64 (T,), flat indices of the numbers.
        side: which bound.
    """
    before = program.nodes[: [node.name for node in program.nodes].index(target) + 1]
    widest = max(node.lower.numel() for node in (bounds[n.name] for n in before))
    rows = max(1, _CHUNK // widest)
    parts = [
        _Backward(program, bounds, slopes, side).run(before, chunk) for chunk in flat.split(rows)
    ]
    return Lines(
        torch.cat([part.coefficients for part in parts]),
        torch.cat([part.constants for part in parts]),
        torch.cat([part.bounds for part in parts]),
    )


class _Backward:
    """One chunk of bounds on its way: upper ones, of the numbers or of their negatives."""

    def __init__(
        self,
        program: Program,
        bounds: Mapping[str, Bounds],
        slopes: Mapping[str, Slopes],
        side: Side,
    ) -> None:
        self.program, self.bounds, self.slopes = program, bounds, slopes
        self.sign = 1.0 if side == "upper" else -1.0
        self.on: dict[str, torch.Tensor] = {}

    def run(self, nodes: tuple[Node, ...], flat: torch.Tensor) -> Lines:
        target = nodes[-1]
        count = len(flat)
        start = torch.zeros(count, self.bounds[target.name].lower.numel(), dtype=torch.float64)
        start[torch.arange(count), flat] = self.sign
        self.on[target.name] = start.reshape(count, *target.shape)
        self.constant = torch.zeros(count, dtype=torch.float64)
        self.lost = torch.zeros(count, dtype=torch.float64)
        with torch.no_grad():
            for node in reversed(nodes[1:]):
                if node.name in self.on:
                    self._through(node, self.on.pop(node.name))
            return self._on_the_box(count)

    def _through(self, node: Node, A: torch.Tensor) -> None:
        """Turn coefficients on what a node gives into ones on what it reads."""
        if isinstance(node, Convolution | Linear | ScaleAndShift | AveragePool):
            self._affine(node, A)
        elif isinstance(node, ReLU):
            self._relu(node, A)
        elif isinstance(node, Add):
            for name in node.inputs:
                self._hand(name, A)
        elif isinstance(node, Flatten):
            self._hand(node.inputs[0], A.reshape(len(A), *self._shape(node.inputs[0])))
        else:
            self._end(node, A)

    def _affine(self, node: Affine, A: torch.Tensor) -> None:
        bias = offset(node, torch.float64).expand(node.shape)
        self.constant += (A * bias).flatten(1).sum(1)
        self._lose(A, self.bounds[node.name].size)
        with torch.enable_grad():
            zero = torch.zeros(len(A), *self._shape(node.inputs[0]), dtype=torch.float64)
            out = linear_map(node, torch.float64)(zero.requires_grad_(True))
        (back,) = torch.autograd.grad(out, zero, A)
        self._hand(node.inputs[0], back)

    def _relu(self, node: ReLU, A: torch.Tensor) -> None:
        name = node.inputs[0]
        bounds = self.bounds[name]
        lower, upper = bounds.lower, bounds.upper
        rising, resting = (
            v.double().reshape(node.shape)
            for v in (self.slopes[name].rising, self.slopes[name].resting)
        )
        endless = ~bounds.magnitude.isfinite()
        if endless.any():  # the ReLU is at least 0, and of its own upper bound
            reached = self.bounds[node.name].upper.nan_to_num(posinf=torch.inf)
            self.constant += _product(A.clamp(min=0) * endless, reached).flatten(1).sum(1)
            A = A.masked_fill(endless, 0)
            lower, upper = (v.masked_fill(endless, 0) for v in (lower, upper))
        at_lower = [lower.clamp(min=0) - d * lower for d in (rising, resting)]
        at_upper = [upper.clamp(min=0) - d * upper for d in (rising, resting)]
        above = torch.maximum(at_lower[0], at_upper[0])
        below = torch.minimum(at_lower[1], at_upper[1])
        below = torch.where((lower < 0) & (upper > 0), below.clamp(max=0), below)
        positive = A > 0
        self.constant += (A * torch.where(positive, above, below)).flatten(1).sum(1)
        self._lose(A, torch.maximum(lower.abs(), upper.abs()))
        self._hand(name, A * torch.where(positive, rising, resting))

    def _end(self, node: Node, A: torch.Tensor) -> None:
        """Take the interval bounds of a node."""
        bounds = self.bounds[node.name]
        ends = torch.where(A > 0, bounds.upper, bounds.lower)
        self.constant += _product(A, ends).flatten(1).sum(1)
        self._lose(A, bounds.magnitude)

    def _hand(self, name: str, A: torch.Tensor) -> None:
        if name in self.on:
            A = self.on[name] + A
            self._lose(A, self.bounds[name].magnitude)
        self.on[name] = A

    def _lose(self, A: torch.Tensor, size: torch.Tensor) -> None:
        """Note what sums of `A` times numbers of these sizes may have lost in float64."""
        # Backwards a sum has as many terms as the node has numbers, at most.
        # What it adds to the constant is summed up over all nodes.
        share = outward64(size.numel() + len(self.program.nodes) + 16)
        self.lost += share * _product(A.abs(), size).flatten(1).sum(1)

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.bounds[name].lower.shape)

    def _on_the_box(self, count: int) -> Lines:
        image = self.program.input
        shape = (count, *image.shape)
        A = self.on.get(image.name, torch.zeros(shape, dtype=torch.float64))
        box = self.bounds[image.name]
        ends = torch.where(A > 0, box.upper, box.lower)
        constants = up(self.constant + self.lost)
        self._lose(A, box.magnitude)
        total = self.constant + (A * ends).flatten(1).sum(1)
        # The sums of constants so far are rounded as well; twice what was lost is more than that.
        highest = up(total + 2 * self.lost + outward64(8) * (total.abs() + self.constant.abs()))
        constants = up(constants + self.lost + outward64(8) * self.constant.abs())
        highest, constants = (
            v.nan_to_num(nan=torch.inf, posinf=torch.inf) for v in (highest, constants)
        )
        return Lines(self.sign * A.flatten(1), self.sign * constants, self.sign * highest)


def _product(A: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return products in which zero times infinity is zero."""
    return torch.where(A == 0, torch.zeros_like(A), A * values)
