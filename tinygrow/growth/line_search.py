"""Which amplitudes a search looks at (tiny.md 1.9): pure functions of a loss."""

import math
from collections.abc import Callable

from tinygrow.settings.growth import AmplitudeSettings

Curve = tuple[list[float], list[float]]
"""Amplitudes, ascending from 0, and the loss at each."""


def search(loss_at: Callable[[float], float], settings: AmplitudeSettings) -> Curve:
    """Return amplitudes 0, 2^k, ... and the loss at each.

    `grid` looks at all powers of two from `smallest_exponent` to below `largest`; `first_increase`
    (the paper) at those up to the first rise by more than the tolerance; `bracket` at a few (7 of
    27) that close in on the lowest. Amplitudes whose loss is not finite are left out.
    """
    exponents = range(settings.smallest_exponent, largest_exponent(settings) + 1)
    if settings.search == "bracket":
        return _bracket(loss_at, exponents, settings.tolerance)
    amplitudes = [0.0]
    losses = [loss_at(0.0)]
    for exponent in exponents:
        loss = loss_at(2.0**exponent)
        if not math.isfinite(loss):  # larger ones overflow as well
            break
        amplitudes.append(2.0**exponent)
        losses.append(loss)
        rise = losses[-1] - losses[-2]
        if settings.search == "first_increase" and rise > settings.tolerance * abs(losses[0]):
            break
    return amplitudes, losses


def largest_exponent(settings: AmplitudeSettings) -> int:
    """Return the exponent of the largest power of two below `largest`."""
    return math.ceil(math.log2(settings.largest)) - 1


def bracket_losses(settings: AmplitudeSettings) -> int:
    """Return how many losses `bracket` looks at, at most, that of amplitude 0 included."""
    places = largest_exponent(settings) - settings.smallest_exponent + 1
    return 1 + max(1, len(_widths(places)) - 1)


def _bracket(loss_at: Callable[[float], float], exponents: range, tolerance: float) -> Curve:
    """Search the lowest of losses that fall and then rise (Fibonacci search: Kiefer, 1953).

    Small amplitudes change nothing and all have the loss at 0: of two that are equal, the larger
    one is followed.
    """
    start = loss_at(0.0)
    seen: dict[int, float] = {}

    def loss(place: int) -> float:
        if place not in seen:
            # Places beyond the last fill the range up to a number of Fibonacci's.
            value = loss_at(2.0 ** exponents[place]) if place < len(exponents) else math.inf
            seen[place] = value if math.isfinite(value) else math.inf
        return seen[place]

    widths, before = _widths(len(exponents)), -1  # the lowest is behind `before`
    for k in range(len(widths) - 1, 1, -1):
        low, high = before + widths[k - 2], before + widths[k - 1]
        if loss(high) < math.inf and loss(high) <= loss(low) + tolerance * abs(start):
            before = low
    loss(before + 1)
    places = sorted(place for place in seen if seen[place] < math.inf)
    return (
        [0.0, *(2.0 ** exponents[place] for place in places)],
        [start, *(seen[place] for place in places)],
    )


def _widths(places: int) -> list[int]:
    """Return Fibonacci's numbers from 1, 2 to the first above the number of places."""
    widths = [1, 2]
    while widths[-1] <= places:
        widths.append(widths[-2] + widths[-1])
    return widths
