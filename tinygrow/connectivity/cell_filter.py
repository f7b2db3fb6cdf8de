"""The paper's filter in front of an architecture search: which cells are scored at all.

It looks at effective depth and width alone (section 5.3), so it costs nothing; it is meant to drop
bad cells, not to rank good ones. It belongs to a complete space of small cells: a whole network
lies outside of any such bounds.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tinygrow.connectivity.space import Cells

Range = tuple[Fraction, Fraction]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Cells between these are kept, the bounds themselves among them.

    Attributes:
        depth: least and greatest effective depth.
        width: least and greatest effective width.
    """

    depth: Range
    width: Range

    def keep(self, cells: Cells) -> NDArray[np.bool_]:
        """Return whether each cell is kept, (N,)."""
        pairs, place = cells.measures()
        inside = [
            self.depth[0] <= depth <= self.depth[1] and self.width[0] <= width <= self.width[1]
            for depth, width in pairs
        ]
        return np.array(inside, bool)[place]


RELEASED = Bounds((Fraction("0.99"), Fraction("2.51")), (Fraction("0.99"), Fraction("3.01")))
"""What the authors' program takes for NAS-Bench-201; the paper's text says otherwise."""


def around_the_middle(cells: Cells, radius: Fraction = Fraction(1, 2)) -> Bounds:
    """Return the rule of the paper's text: so much of the way from the middle to the extremes.

    Args:
        cells: of a complete space, whose extremes count; those without a layer on a path do not.
        radius: share of the way; the paper's is a half.
    """
    pairs, _ = cells.measures()
    deep = [pair for pair in pairs if pair[0] > 0]

    def between(values: list[Fraction]) -> Range:
        low, high = min(values), max(values)
        middle, reach = (low + high) / 2, (high - low) / 2 * radius
        return middle - reach, middle + reach

    return Bounds(between([depth for depth, _ in deep]), between([width for _, width in deep]))


def most_layers(cells: Cells, count: int) -> NDArray[np.float64]:
    """Return the chance of each cell to be among the `count` with the most live layers, (N,).

    The rule that needs no theory: count the convolutions. Equals share what places are left.
    """
    chance = np.zeros(len(cells.codes))
    left = count
    for layers in np.unique(cells.live_layers)[::-1]:
        equals = cells.live_layers == layers
        chance[equals] = min(1.0, left / equals.sum())
        left = max(0, left - int(equals.sum()))
    return chance
