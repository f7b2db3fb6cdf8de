"""Counts of paths against listings of them, published numbers and the rules of composition."""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrow.connectivity.dag import Dag, Edge, parallel, series
from tinygrow.connectivity.paths import Paths, in_series
from tinygrow.errors import TinygrowError

ORACLES = json.loads((Path(__file__).parent / "oracles.json").read_text())
BLOCK = Dag(8, tuple(Edge(*e) for e in [(0, 1, 1), (1, 2), (2, 3), (3, 4, 1), (4, 6), (0, 6)]))
"""Two layers with activations and a norm between, a skip, and a value that nothing reads."""


@st.composite
def dags(draw: st.DrawFn) -> Dag:
    nodes = draw(st.integers(2, 6))
    pairs = [(s, t) for t in range(1, nodes) for s in range(t)]
    edges = [Edge(*pair, depth) for pair in pairs for depth in draw(st.lists(_DEPTHS, max_size=2))]
    return Dag(nodes, tuple(edges))


_DEPTHS = st.integers(0, 2)


def listed(dag: Dag) -> list[list[Edge]]:
    """List every path, edge by edge."""

    def walk(node: int) -> list[list[Edge]]:
        if node == dag.nodes - 1:
            return [[]]
        return [[e, *rest] for e in dag.edges if e.source == node for rest in walk(e.target)]

    return walk(0)


def depths(dag: Dag) -> list[int]:
    return sorted(sum(e.depth for e in path) for path in listed(dag))


@pytest.mark.parametrize("oracle", ORACLES["dags"], ids=lambda o: o["name"])
def test_published_dags(oracle: dict[str, Any]) -> None:
    dag = Dag.from_code(oracle["code"])
    paths = dag.paths()
    assert paths == Paths.of_depths(oracle["path_depths"])
    assert paths.total == oracle["P"]
    assert paths.effective_depth == Fraction(oracle["d"])
    assert paths.effective_width == Fraction(oracle["m"])
    assert paths.sum_of_cubes == oracle["sum_cubes"]
    assert paths.bound(0.0) == pytest.approx(oracle["bound_c0"], abs=1e-12)
    assert paths.bound(0.5) == pytest.approx(oracle["bound_c05"], abs=1e-12)


def test_the_best_cell_of_nas_bench_201() -> None:
    paths = Dag.from_code("2_22_122").paths()
    assert paths == Paths.of_depths([0, 2, 2, 3])
    assert (paths.effective_depth, paths.effective_width) == (Fraction(7, 4), Fraction(12, 7))


@pytest.mark.parametrize("code", ["", "2_2", "3_00", "2_21_11", "2-21", "2_21_112_"])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(TinygrowError, match="groups of 1, 2, 3"):
        Dag.from_code(code)


@given(dags())
def test_counting_is_listing(dag: Dag) -> None:
    paths, found = dag.paths(), depths(dag)
    assert paths == Paths.of_depths(found)
    if found:
        mean = Fraction(sum(found), len(found))
        assert paths.effective_depth == mean
        deep = sum(depth > 0 for depth in found)
        assert paths.effective_width == (Fraction(deep) / mean if mean else 0)
        assert (paths.shortest, paths.longest) == (found[0], found[-1])
        assert paths.shortest <= paths.effective_depth <= paths.longest
        if paths.shortest:
            assert paths.effective_width == paths.total / paths.effective_depth


@given(dags(), dags())
def test_in_series_paths_convolve_and_depths_add(one: Dag, other: Dag) -> None:
    a, b, both = one.paths(), other.paths(), series([one, other]).paths()
    assert both == a.then(b) == in_series([a, b])
    assert both == Paths.of_depths([x + y for x in depths(one) for y in depths(other)])
    assert both.total == a.total * b.total
    if both.total:
        assert both.effective_depth == a.effective_depth + b.effective_depth


@given(dags(), dags())
def test_in_parallel_paths_add_and_depths_average(one: Dag, other: Dag) -> None:
    a, b, both = one.paths(), other.paths(), parallel([one, other]).paths()
    assert both == a.beside(b) == Paths.of_depths(depths(one) + depths(other))
    if both.total:
        weighed = a.total * a.effective_depth + b.total * b.effective_depth
        assert both.effective_depth == weighed / both.total
        assert both.bound(0.3) == pytest.approx(a.bound(0.3) + b.bound(0.3))


@given(dags(), st.data())
def test_a_node_on_a_skip_changes_nothing(dag: Dag, data: st.DataObject) -> None:
    if not dag.edges:
        return
    place = data.draw(st.integers(0, len(dag.edges) - 1))
    split = dag.edges[place]

    def later(node: int) -> int:
        return node + (node > split.source)

    edges = [Edge(later(e.source), later(e.target), e.depth) for e in dag.edges]
    edges[place : place + 1] = [
        Edge(split.source, split.source + 1),
        Edge(split.source + 1, later(split.target), split.depth),
    ]
    assert Dag(dag.nodes + 1, tuple(edges)).paths() == dag.paths()


@given(dags())
def test_cuts_are_on_every_path_and_dead_edges_on_none(dag: Dag) -> None:
    ways = listed(dag)
    through = [{0, *(e.target for e in path)} for path in ways]
    cuts = [v for v in range(dag.nodes) if through and all(v in nodes for nodes in through)]
    assert dag.cuts() == cuts
    used = {e for path in ways for e in path}
    assert dag.dead_edges() == tuple(e for e in dag.edges if e.depth and e not in used)


@given(dags())
def test_contraction_keeps_the_paths_and_no_needless_skip(dag: Dag) -> None:
    small = dag.contracted()
    assert small.paths() == dag.paths()
    for edge in small.edges:
        leaving = sum(e.source == edge.source for e in small.edges)
        arriving = sum(e.target == edge.target for e in small.edges)
        ends = {edge.source, edge.target} == {0, small.nodes - 1}
        assert edge.depth or ends or (leaving > 1 or edge.source == 0)
        assert edge.depth or ends or (arriving > 1 or edge.target == small.nodes - 1)


def test_two_hundred_residual_blocks_are_counted_and_not_listed() -> None:
    # 2^200 paths: listing them would not end.
    whole = series([Dag(7, BLOCK.edges)] * 200)
    paths = whole.paths()
    assert paths.total == 2**200
    assert paths.effective_depth == 200
    assert paths.effective_width == Fraction(2**200 - 1, 200)
    assert paths.counts[2::2][:3] == (200, math.comb(200, 2), math.comb(200, 3))
    assert len(whole.cuts()) == 201
    assert paths.bound_per_path() == pytest.approx(0.001, abs=5e-4)
    assert series([Dag(7, BLOCK.edges)] * 1100).paths().bound() == math.inf


@pytest.mark.parametrize("counts", [(0,), (1, 0), (1, -1, 1)])
def test_counts_end_with_a_path(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="counts are at least 0"):
        Paths(counts)
