"""Algorithm 1's visits: how they take every width from its start to its end."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tinygrow.architecture import Architecture
from tinygrow.errors import TinygrowError
from tinygrow.settings.growth import GrowthSettings


@dataclass(frozen=True, slots=True)
class Visit:
    """One extension of the plan.

    Attributes:
        sweep: visit of this site, from 1.
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


def most_neurons(
    start: Sequence[int], final: Sequence[int], extensions: int, multiple: int = 1
) -> tuple[int, ...]:
    """Return the neurons of the largest extension of every site."""
    reached = _reached(start, _gaps(start, final), extensions, multiple)
    return tuple(
        max(b - a for a, b in pairwise((width, *widths)))
        for width, widths in zip(start, reached, strict=True)
    )


def check_plan(start: Architecture, final: Architecture, settings: GrowthSettings) -> None:
    """Refuse a plan that does not come out whole, as the paper's do.

    A user's network has whatever widths it has: its extensions may differ by a neuron. So may
    those of a plan that keeps widths to multiples, of which the final widths have to be some.

    Raises:
        TinygrowError: see `neurons_per_extension`; or a final width is no such multiple.
    """
    multiple = settings.where.width_multiple
    if multiple > 1:
        pairs = zip(start.middle_widths, final.middle_widths, strict=True)
        wrong = dict.fromkeys(b for a, b in pairs if b > a and b % multiple)
        if wrong:
            raise TinygrowError(
                f"where.width_multiple is {multiple}, of which the final"
                f" widths {', '.join(map(str, wrong))} are no multiples; change either"
            )
    elif start.kind != "custom":
        neurons_per_extension(start.middle_widths, final.middle_widths, settings.extensions)


def visits(
    start: Sequence[int], final: Sequence[int], extensions: int, multiple: int = 1
) -> Iterator[Visit]:
    """Yield Algorithm 1's visits: `extensions` sweeps over all sites in order of depth.

    Targets count from the start, so neurons that could not be added at one visit are made up for
    at the next. Where they do not divide, extensions differ by one neuron. Targets are rounded up
    to multiples of `multiple`; a visit whose target is reached already adds nothing.
    """
    reached = _reached(start, _gaps(start, final), extensions, multiple)
    for sweep in range(1, extensions + 1):
        for index, widths in enumerate(reached):
            yield Visit(sweep, index, widths[sweep - 1], index == len(reached) - 1)


def whole(width: int, count: int, multiple: int) -> int:
    """Return the neurons, at most `count`, that take a width to a multiple; 0 where none is near.

    Args:
        width: before the extension.
        count: neurons that there are.
        multiple: what the new width is to be a multiple of.
    """
    return max(0, (width + count) // multiple * multiple - width)


def _gaps(start: Sequence[int], final: Sequence[int]) -> list[int]:
    gaps = [b - a for a, b in zip(start, final, strict=True)]
    if any(gap < 0 for gap in gaps):
        raise TinygrowError(f"start widths {list(start)} exceed the final widths {list(final)}")
    return gaps


def _reached(
    start: Sequence[int], gaps: Sequence[int], extensions: int, multiple: int
) -> list[list[int]]:
    """Return the widths that every site should have after each of its visits."""
    unit = extensions * multiple
    return [
        [
            min(width + gap, -(-(width * extensions + gap * n) // unit) * multiple)
            for n in range(1, extensions + 1)
        ]
        for width, gap in zip(start, gaps, strict=True)
    ]
