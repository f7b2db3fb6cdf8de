"""All cells of a search space at once: every DAG of a few nodes, and NAS-Bench-201's 15,625 cells.

An array of codes has a row a cell and a column an edge, in the order of `edges_of`: 0 for none, 1
for a skip or pooling, 2 for a layer.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tinygrow.connectivity.paths import Paths

Codes = NDArray[np.int64]
Counts = NDArray[np.int64]

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Of NAS-Bench-201, by the digits of its keys."""
NONE, SKIP, LAYER = range(3)
_CODE_OF_OPERATION = np.array([NONE, SKIP, LAYER, LAYER, SKIP])
LARGEST = 5
"""Nodes of the largest DAGs that are enumerated: 3^10 = 59,049 of them."""


def edges_of(nodes: int) -> list[tuple[int, int]]:
    """Return all edges of a DAG by their target, then their source: (0,1), (0,2), (1,2), ..."""
    return [(source, target) for target in range(1, nodes) for source in range(target)]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Many DAGs of one number of nodes.

    Attributes:
        nodes: of each.
        codes: (N, edges).
        counts: (N, nodes) paths from the first node to the last, by their depth.
        live_layers: (N,) layers that lie on such a path.
        layers: (N,) layers, wherever they lie.
    """

    nodes: int
    codes: Codes
    counts: Counts
    live_layers: NDArray[np.int64]
    layers: NDArray[np.int64]

    @property
    def total(self) -> NDArray[np.int64]:
        """Number of paths of each, (N,)."""
        return self.counts.sum(1)

    def measures(self) -> tuple[list[tuple[Fraction, Fraction]], NDArray[np.int64]]:
        """Return the distinct pairs of effective depth and width, and the pair of each cell."""
        rows, place = np.unique(self.counts, axis=0, return_inverse=True)
        kinds = [paths_of(row) for row in rows]
        pairs = [(p.effective_depth, p.effective_width) for p in kinds]
        distinct = sorted(set(pairs))
        number = np.array([distinct.index(pair) for pair in pairs])
        return distinct, number[place.reshape(-1)]


def paths_of(counts: NDArray[np.int64]) -> Paths:
    """Return a row of counts as `Paths`."""
    return Paths(tuple(int(c) for c in np.trim_zeros(counts, "b")))


def cells_of(codes: Codes, nodes: int) -> Cells:
    """Return the cells of the rows of `codes`."""
    before = np.zeros((len(codes), nodes, nodes), np.int64)  # cell, node, depth
    before[:, 0, 0] = 1
    after = np.zeros((len(codes), nodes), np.int64)
    after[:, -1] = 1
    edges = edges_of(nodes)
    for column, (source, target) in enumerate(edges):
        code = codes[:, column, None]
        before[:, target] += np.where(code == SKIP, before[:, source], 0)
        before[:, target, 1:] += np.where(code == LAYER, before[:, source, :-1], 0)
    # A node's ways to the sink are known once those of all later nodes are.
    for source in reversed(range(nodes - 1)):
        for column, edge in enumerate(edges):
            if edge[0] == source:
                after[:, source] += np.where(codes[:, column] != NONE, after[:, edge[1]], 0)
    live = np.zeros(len(codes), np.int64)
    for column, (source, target) in enumerate(edges):
        reached = before[:, source].any(1) & (after[:, target] > 0)
        live += (codes[:, column] == LAYER) & reached
    return Cells(
        nodes=nodes,
        codes=codes,
        counts=before[:, -1],
        live_layers=live,
        layers=(codes == LAYER).sum(1),
    )


@lru_cache(maxsize=LARGEST)
def every_dag(nodes: int) -> Cells:
    """Return all DAGs of up to five nodes whose edges are none, a skip or a layer."""
    if not 2 <= nodes <= LARGEST:
        raise ValueError(f"{nodes} nodes; 2 to {LARGEST} can be enumerated")
    edges = len(edges_of(nodes))
    codes = np.array(list(product(range(3), repeat=edges)), np.int64)
    return cells_of(codes, nodes)


def nas_bench_201() -> tuple[list[str], Cells]:
    """Return the keys of all cells, one digit of `OPERATIONS` an edge, and the cells."""
    digits = np.array(list(product(range(len(OPERATIONS)), repeat=6)), np.int64)
    keys = ["".join(map(str, row)) for row in digits.tolist()]
    return keys, cells_of(_CODE_OF_OPERATION[digits], 4)


def rank_among_equals(paths: Paths, nodes: int, layers: int) -> tuple[float, float] | None:
    """Return the percentiles of effective depth and width among DAGs of the same size.

    Those are all DAGs of so many nodes with so many layers, each of them on a path. A percentile is
    the share of them that have less, and half of those that have as much, in percent.

    Args:
        paths: of the DAG in question.
        nodes: that it takes.
        layers: on its edges.

    Returns:
        None where there are too many such DAGs to enumerate, or none.
    """
    if not 2 <= nodes <= LARGEST:
        return None
    cells = every_dag(nodes)
    pairs, place = cells.measures()
    equals = (cells.layers == layers) & (cells.live_layers == layers) & (cells.total > 0)
    if not equals.any():
        return None
    numbers = np.bincount(place[equals], minlength=len(pairs))

    def percentile(own: Fraction, part: int) -> float:
        less = sum(n for pair, n in zip(pairs, numbers, strict=True) if pair[part] < own)
        same = sum(n for pair, n in zip(pairs, numbers, strict=True) if pair[part] == own)
        return float(100 * (less + same / 2) / numbers.sum())

    return percentile(paths.effective_depth, 0), percentile(paths.effective_width, 1)
