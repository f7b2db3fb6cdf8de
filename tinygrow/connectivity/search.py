"""Random search over a table of cells, with a filter in front of it or without."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Accuracies = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What a search sees of a cell, and what is told of the one it chose.

    Attributes:
        seen: accuracy of a single training run, (N,).
        told: mean accuracy of the cell's other runs, (N,): the luck of the first is not in it.
    """

    seen: Accuracies
    told: Accuracies

    @classmethod
    def of_runs(cls, runs: Accuracies) -> "Table":
        """Take the first run of each cell as seen; `runs` is (N, runs), NaN where missing."""
        return cls(runs[:, 0], np.nanmean(runs[:, 1:], axis=1))


def best_by_scored(
    table: Table,
    kept: NDArray[np.bool_],
    *,
    budget: int,
    repeats: int,
    generator: np.random.Generator,
) -> Accuracies:
    """Return the accuracy of the best cell found after 1, 2, ..., `budget` cells were scored.

    A cell that the filter drops is drawn again and costs nothing.

    Returns:
        (repeats, budget).
    """
    allowed = np.flatnonzero(kept)
    drawn = np.stack([generator.choice(allowed, budget, replace=False) for _ in range(repeats)])
    seen = table.seen[drawn]
    leader = np.maximum.accumulate(seen, axis=1)
    # The place of the leader: the last one that was as good as all before it.
    places = np.where(seen >= leader, np.arange(budget), 0)
    best = np.maximum.accumulate(places, axis=1)
    return table.told[np.take_along_axis(drawn, best, axis=1)]


def best_of_drawn(
    table: Table,
    kept: NDArray[np.bool_],
    *,
    draws: int,
    repeats: int,
    generator: np.random.Generator,
) -> tuple[Accuracies, NDArray[np.int64]]:
    """Return the accuracy of the best cell that passes among `draws`, and how many were scored.

    This is how the paper's search uses its filter: the sample stays, fewer of it are scored.

    Returns:
        Both (repeats,); the accuracy is NaN where none passed.
    """
    best, scored = np.full(repeats, np.nan), np.zeros(repeats, np.int64)
    for repeat in range(repeats):
        drawn = generator.choice(len(table.seen), draws, replace=False)
        passed = drawn[kept[drawn]]
        scored[repeat] = len(passed)
        if len(passed):
            best[repeat] = table.told[passed[table.seen[passed].argmax()]]
    return best, scored
