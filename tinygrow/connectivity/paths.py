"""The paths of a network by their depth: counted, never listed."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from operator import add
from typing import Self

from tinygrow.connectivity.kernel import profile


@dataclass(frozen=True, slots=True)
class Paths:
    """How many paths there are of each depth, in exact integers.

    A path's depth is the number of parameterised operations on it: convolutions and linear layers
    count 1, skips and pooling 0.

    Attributes:
        counts: entry t is the number of paths of depth t; the last entry is not 0, so that no path
            at all is the empty tuple.
    """

    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.counts and (min(self.counts) < 0 or not self.counts[-1]):
            raise ValueError(f"{self.counts}: counts are at least 0 and the last one is more")

    @classmethod
    def of_depths(cls, depths: Iterable[int]) -> Self:
        """Return paths that are listed by their depths."""
        listed = list(depths)
        counts = [0] * (max(listed, default=-1) + 1)
        for depth in listed:
            counts[depth] += 1
        return cls(tuple(counts))

    @property
    def total(self) -> int:
        """The number of paths P."""
        return sum(self.counts)

    @property
    def shortest(self) -> int:
        """The least depth; 0 where there is no path."""
        return next((t for t, count in enumerate(self.counts) if count), 0)

    @property
    def longest(self) -> int:
        """The greatest depth; 0 where there is no path."""
        return max(len(self.counts) - 1, 0)

    @property
    def effective_depth(self) -> Fraction:
        """The mean depth over all paths (Definition 4.1); 0 where there is no path."""
        total = self.total
        return Fraction(_moment(self.counts, 1), total) if total else Fraction(0)

    @property
    def effective_width(self) -> Fraction:
        """Paths with at least one parameterised operation, over the effective depth; else 0."""
        deep = _moment(self.counts, 1)
        return Fraction((self.total - self.counts[0]) * self.total, deep) if deep else Fraction(0)

    @property
    def sum_of_cubes(self) -> int:
        """The sum of the cubed depths, which learning rates are scaled by (arXiv 2402.17440)."""
        return _moment(self.counts, 3)

    def deeper(self, depth: int) -> Self:
        """Return the same paths, each with `depth` more parameterised operations."""
        return type(self)((0,) * depth + self.counts) if depth and self.counts else self

    def then(self, other: Self) -> Self:
        """Return the paths of two networks in series: depths add, pair by pair."""
        if not self.counts or not other.counts:
            return type(self)()
        counts = [0] * (len(self.counts) + len(other.counts) - 1)
        for s, ways in enumerate(self.counts):
            if ways:
                for t, count in enumerate(other.counts):
                    counts[s + t] += ways * count
        return type(self)(tuple(counts))

    def beside(self, *others: Self) -> Self:
        """Return the paths of networks in parallel: all of them together."""
        return type(self)(reduce(_added, (other.counts for other in others), self.counts))

    def bound_per_path(self, correlation: float = 0.0) -> float:
        """Return the mean of 1 - f^d over all paths, free of the scale that their number brings.

        Args:
            correlation: of two inputs, from -1 to 1.
        """
        total, falls = self.total, profile(correlation, self.longest)
        return sum(c / total * fall for c, fall in zip(self.counts, falls, strict=False) if c)

    def bound(self, correlation: float = 0.0) -> float:
        """Return the sum of 1 - f^d over all paths; infinite beyond what a float holds.

        It bounds the least eigenvalue of the network's NNGP kernel from above (equation 12), for
        two inputs of length 1: a larger one speaks for faster convergence at one small learning
        rate, and proves nothing.

        Args:
            correlation: of the two inputs, from -1 to 1.
        """
        try:
            return float(self.total) * self.bound_per_path(correlation)
        except OverflowError:
            return math.inf


def in_series(parts: Iterable[Paths]) -> Paths:
    """Return the paths of parts one behind the other; none at all is one path of depth 0."""
    return reduce(Paths.then, parts, Paths((1,)))


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    short, long = sorted((one, other), key=len)
    return (*map(add, short, long), *long[len(short) :])


def _moment(counts: tuple[int, ...], power: int) -> int:
    return sum(t**power * count for t, count in enumerate(counts))
