"""Whole spaces of cells against one cell at a time, and the published counts of the filter."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from tinygrow.connectivity.cell_filter import RELEASED, Bounds, around_the_middle, most_layers
from tinygrow.connectivity.dag import Dag, Edge
from tinygrow.connectivity.paths import Paths
from tinygrow.connectivity.space import (
    Cells,
    edges_of,
    every_dag,
    nas_bench_201,
    paths_of,
    rank_among_equals,
)

HALF = Fraction(1, 2)


@pytest.fixture(scope="module")
def cells() -> Cells:
    return nas_bench_201()[1]


def as_dag(cells: Cells, row: int) -> Dag:
    pairs = zip(edges_of(cells.nodes), cells.codes[row].tolist(), strict=True)
    return Dag(cells.nodes, tuple(Edge(*pair, code - 1) for pair, code in pairs if code))


@pytest.mark.parametrize("nodes", [2, 3, 4, 5])
def test_the_array_counts_as_one_dag_does(nodes: int) -> None:
    space = every_dag(nodes)
    assert len(space.codes) == 3 ** (nodes * (nodes - 1) // 2)
    for row in np.random.default_rng(nodes).integers(0, len(space.codes), 60):
        dag = as_dag(space, row)
        assert paths_of(space.counts[row]) == dag.paths()
        dead = len(dag.dead_edges())
        assert space.layers[row] - space.live_layers[row] == dead


def test_keys_name_the_operations_of_the_edges(cells: Cells) -> None:
    keys, _ = nas_bench_201()
    assert len(set(keys)) == 15_625
    for key, code in (("303003", "2_02_002"), ("101333", "1_01_222"), ("331113", "2_21_112")):
        assert paths_of(cells.counts[keys.index(key)]) == Dag.from_code(code).paths()
    # The worth of a 1x1 and of a 3x3 convolution is the same, and so is that of skip and pooling.
    assert keys.index("204000") < len(keys)
    twins = [cells.counts[keys.index(key)].tolist() for key in ("331113", "224442", "231412")]
    assert twins[0] == twins[1] == twins[2]


def test_published_counts(cells: Cells) -> None:
    assert (cells.total == 0).sum() == 341
    assert ((cells.total > 0) & (cells.live_layers == 0)).sum() == 1_642
    assert len(cells.measures()[0]) == 32
    kept = [around_the_middle(cells, Fraction(s, 4)).keep(cells).sum() for s in (1, 2, 3, 4)]
    assert kept == [1_376, 6_256, 9_762, 13_642]
    assert RELEASED.keep(cells).sum() == 8_226
    full = around_the_middle(cells, Fraction(1)).keep(cells)
    np.testing.assert_array_equal(full, cells.live_layers > 0)


def test_the_papers_bounds_come_from_the_spaces_extremes(cells: Cells) -> None:
    assert around_the_middle(cells) == Bounds(
        (Fraction(13, 8) - Fraction(11, 16), Fraction(13, 8) + Fraction(11, 16)),
        (Fraction(13, 6) - Fraction(11, 12), Fraction(13, 6) + Fraction(11, 12)),
    )


def test_the_space_of_three_operations(cells: Cells) -> None:
    small = every_dag(4)
    assert (small.total == 0).sum() == 67
    assert ((small.total > 0) & (small.live_layers == 0)).sum() == 121
    half, released = around_the_middle(small).keep(small), RELEASED.keep(small)
    assert (half.sum(), released.sum()) == (201, 355)
    codes = ["".join(map(str, row)) for row in small.codes.tolist()]
    kept = {code: (half[i], released[i]) for i, code in enumerate(codes)}
    assert kept["202002"] == (False, False)
    assert kept["101222"] == kept["221112"] == (True, True)


def test_bounds_are_kept_themselves() -> None:
    small = every_dag(2)  # none, a skip, a layer
    one = (Fraction(1), Fraction(1))
    assert Bounds(one, one).keep(small).tolist() == [False, False, True]


def test_most_layers_shares_the_last_places(cells: Cells) -> None:
    chance = most_layers(cells, 6_256)
    assert chance.sum() == pytest.approx(6_256)
    assert set(np.unique(chance[cells.live_layers >= 3])) == {1.0}
    assert set(np.unique(chance[cells.live_layers <= 1])) == {0.0}
    (shared,) = np.unique(chance[cells.live_layers == 2])
    assert 0 < shared < 1


def test_ranks_are_among_dags_of_equal_size() -> None:
    # Three nodes, two layers, all of them live: listed by hand.
    alive = []
    for codes in product(range(3), repeat=3):
        pairs = zip(edges_of(3), codes, strict=True)
        dag = Dag(3, tuple(Edge(*pair, code - 1) for pair, code in pairs if code))
        if codes.count(2) == 2 and not dag.dead_edges() and dag.paths().total:
            alive.append(dag.paths())
    assert sorted(p.counts for p in alive) == [(0, 0, 1), (0, 2), (0, 2), (1, 0, 1)]
    # Depths 2, 1, 1, 1: less than that of {0, 2} none, as deep three of four.
    assert rank_among_equals(Paths((1, 0, 1)), 3, 2) == (37.5, 37.5)
    assert rank_among_equals(Paths((0, 0, 1)), 3, 2) == (87.5, 12.5)
    assert rank_among_equals(Paths((1,)), 6, 2) is None
    assert rank_among_equals(Paths((1,)), 3, 4) is None
    with pytest.raises(ValueError, match="2 to 5 can be enumerated"):
        every_dag(6)
