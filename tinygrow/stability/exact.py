"""Interval bounds of dense layers without any rounding.

float32 weights and the ends of the domain are whole numbers times a power of two, and so are sums
and products of such numbers. They are done here in Python's integers: a bound of exactly zero is
told from one that float64 cannot tell from zero (exact_compression.md 4.5).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tinygrow.stability.program import (
    Add,
    Flatten,
    Input,
    Linear,
    Node,
    Program,
    ReLU,
    ScaleAndShift,
)

# Products of integers that are worth a second or two.
MOST_PRODUCTS = 4_000_000
_BITS = 53


@dataclass(frozen=True, slots=True)
class Dyadic:
    """Numbers `whole * 2^exponent`.

    Attributes:
        whole: Python integers, in an array of objects.
        exponent: of all of them.
    """

    whole: npt.NDArray[np.object_]
    exponent: int

    def at(self, exponent: int) -> npt.NDArray[np.object_]:
        """Return the whole numbers for a smaller exponent."""
        result: npt.NDArray[np.object_] = self.whole * (1 << (self.exponent - exponent))
        return result

    def outward(self, direction: float) -> torch.Tensor:
        """Return the float64 numbers that are next in a direction (an infinity), or equal."""
        values = [_rounded(int(v), self.exponent, direction) for v in self.whole.flatten().tolist()]
        return torch.tensor(values, dtype=torch.float64).reshape(self.whole.shape)


def dyadic(values: torch.Tensor) -> Dyadic:
    """Return finite floating-point numbers as they are."""
    array = values.detach().double().numpy()
    mantissas, exponents = np.frexp(array)
    exponents = exponents.astype(int) - _BITS
    least = int(exponents[array != 0].min(initial=0)) if (array != 0).any() else 0
    whole = np.empty(array.shape, dtype=object)
    flat = whole.reshape(-1)
    mantissa_list = np.ldexp(mantissas, _BITS).astype(np.int64).reshape(-1).tolist()
    for i, (m, e) in enumerate(zip(mantissa_list, exponents.reshape(-1).tolist(), strict=True)):
        flat[i] = m << (e - least) if m else 0
    return Dyadic(whole, least)


def exact_bounds(program: Program) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return lower and upper bounds of what can be bounded by dense layers alone, by name.

    They are the interval bounds themselves, of the operations one by one, rounded outward only to
    be written as float64.
    """
    found: dict[str, tuple[Dyadic, Dyadic]] = {}
    left = MOST_PRODUCTS
    for node in program.nodes:
        if not all(name in found for name in node.inputs):
            continue
        if isinstance(node, Linear):
            left -= node.weight.numel()
        if left < 0:
            break
        bounds = _bounds(node, [found[name] for name in node.inputs])
        if bounds is not None:
            found[node.name] = bounds
    return {
        name: (lower.outward(-math.inf), upper.outward(math.inf))
        for name, (lower, upper) in found.items()
    }


def _bounds(node: Node, read: list[tuple[Dyadic, Dyadic]]) -> tuple[Dyadic, Dyadic] | None:
    if isinstance(node, Input):
        ends = (v.reshape(-1, 1, 1).expand(node.shape) for v in (node.lower, node.upper))
        lower, upper = (dyadic(v) for v in ends)
        return lower, upper
    if isinstance(node, Flatten):
        lower, upper = (Dyadic(v.whole.reshape(-1), v.exponent) for v in read[0])
        return lower, upper
    if isinstance(node, ReLU):
        lower, upper = (Dyadic(np.maximum(v.whole, 0), v.exponent) for v in read[0])
        return lower, upper
    if isinstance(node, Add):
        lower, upper = (_sum(a, b) for a, b in zip(*read, strict=True))
        return lower, upper
    if isinstance(node, Linear):
        weight = dyadic(node.weight)
        above, below = np.maximum(weight.whole, 0), np.minimum(weight.whole, 0)
        return _affine(read[0], weight.exponent, above, below, dyadic(node.bias), np.dot)
    if isinstance(node, ScaleAndShift):
        weight = dyadic(node.weight.expand(node.shape))
        above, below = np.maximum(weight.whole, 0), np.minimum(weight.whole, 0)
        bias = dyadic(node.bias.expand(node.shape))
        return _affine(read[0], weight.exponent, above, below, bias, np.multiply)
    return None


def _affine(
    read: tuple[Dyadic, Dyadic],
    exponent: int,
    above: npt.NDArray[np.object_],
    below: npt.NDArray[np.object_],
    bias: Dyadic,
    product: Callable[..., Any],
) -> tuple[Dyadic, Dyadic]:
    common = min(v.exponent for v in read)
    lower, upper = (v.at(common) for v in read)
    ends = (
        product(above, lower) + product(below, upper),
        product(above, upper) + product(below, lower),
    )
    first, second = (_sum(Dyadic(end, common + exponent), bias) for end in ends)
    return first, second


def _sum(one: Dyadic, other: Dyadic) -> Dyadic:
    exponent = min(one.exponent, other.exponent)
    return Dyadic(one.at(exponent) + other.at(exponent), exponent)


def _rounded(whole: int, exponent: int, direction: float) -> float:
    exact = Fraction(whole) * Fraction(2) ** exponent
    nearest = float(exact)
    wrong = nearest < exact if direction > 0 else nearest > exact
    return math.nextafter(nearest, direction) if wrong else nearest
