"""Where and when: the plan that takes every width from its start to its end in whole steps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tinygrow.architecture import Architecture
from tinygrow.errors import TinygrowError


@dataclass(frozen=True, slots=True)
class Visit:
    """One extension of the plan.

    Attributes:
        sweep: from 1.
        index: which site, in order of depth.
        target: width that the site should have afterwards.
        ends_sweep: whether this is the last site of its sweep.
    """

    sweep: int
    index: int
    target: int
    ends_sweep: bool


def neurons_per_extension(
    start: Sequence[int], final: Sequence[int], extensions: int
) -> tuple[int, ...]:
    """Return n_d = (final - start) / extensions for every site (tiny.md 1.11).

    Raises:
        TinygrowError: some n_d is not whole; the message names the numbers that work.
    """
    gaps = _gaps(start, final)
    if any(gap % extensions for gap in gaps):
        common = math.gcd(*gaps)
        works = [n for n in range(1, common + 1) if common % n == 0]
        raise TinygrowError(
            f"extensions is {extensions}, which does not divide the neurons to add at every depth"
            f" ({', '.join(map(str, gaps))}); numbers of extensions that work:"
            f" {', '.join(map(str, works))}"
        )
    return tuple(gap // extensions for gap in gaps)


def check_plan(start: Architecture, final: Architecture, extensions: int) -> None:
    """Refuse a plan that does not come out whole, as the paper's do.

    A user's network has whatever widths it has: its extensions may differ by a neuron.

    Raises:
        TinygrowError: see `neurons_per_extension`.
    """
    if start.kind != "custom":
        neurons_per_extension(start.middle_widths, final.middle_widths, extensions)


def most_neurons(start: Sequence[int], final: Sequence[int], extensions: int) -> tuple[int, ...]:
    """Return the neurons of the largest extension of every site."""
    return tuple(-(-gap // extensions) for gap in _gaps(start, final))


def visits(start: Sequence[int], final: Sequence[int], extensions: int) -> Iterator[Visit]:
    """Yield Algorithm 1's visits: `extensions` sweeps over all sites in order of depth.

    Targets count from the start, so neurons that could not be added at one visit are made up for
    at the next. Where they do not divide, extensions differ by one neuron.
    """
    gaps = _gaps(start, final)
    for sweep in range(1, extensions + 1):
        for index, (width, gap) in enumerate(zip(start, gaps, strict=True)):
            target = width + -(-gap * sweep // extensions)
            yield Visit(sweep, index, target, index == len(gaps) - 1)


def _gaps(start: Sequence[int], final: Sequence[int]) -> list[int]:
    gaps = [b - a for a, b in zip(start, final, strict=True)]
    if any(gap < 0 for gap in gaps):
        raise TinygrowError(f"start widths {list(start)} exceed the final widths {list(final)}")
    return gaps
