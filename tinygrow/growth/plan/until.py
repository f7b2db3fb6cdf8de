"""Until when: how many neurons a budget leaves room for."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit to a cost that grows by the same amount with each neuron.

    Attributes:
        limit: at most; 0: none.
        used: by the network as it is.
        each: of one more neuron at the site.
    """

    limit: int
    used: int
    each: int


def fitting(count: int, budgets: Iterable[Budget]) -> int:
    """Return how many of `count` neurons exceed none of the budgets."""
    for budget in budgets:
        if budget.limit:
            count = min(count, max(0, (budget.limit - budget.used) // budget.each))
    return count


def most_that(fits: Callable[[int], bool], count: int) -> int:
    """Return the largest number of neurons up to `count` that fits, by bisection.

    Args:
        fits: says whether so many fit; measured, so not called more often than needed.
        count: at least 1.
    """
    if fits(count):
        return count
    low, high = 0, count  # none always fit: there is nothing to add
    for _ in range(math.ceil(math.log2(count)) if count > 1 else 0):
        middle = (low + high) // 2
        if middle == low:
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
