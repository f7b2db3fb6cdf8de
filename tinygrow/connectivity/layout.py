"""Where the nodes and edges of a network's drawing go: depth to the right, branches apart."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tinygrow.connectivity.dag import Dag, Edge
from tinygrow.connectivity.segments import Segment

WHOLE = 60
"""Layers on the longest path up to which equal neighbours are drawn one by one."""
_SKIP = 0.2  # what a skip takes of the axis where no layer lies beside it


def layout(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """Return the parts of a drawing, from left to right, as plain data.

    Each part has `times` (equal segments in a row of a deep network are drawn once), `depth` (its
    longest path), `width` (of the axis), `nodes` (x, lane and depth of each, the main path on
    lane 0) and
    `edges` (source, target, layers).
    """
    drawn = [(segment.dag.contracted(), segment.paths.longest) for segment in segments]
    if sum(depth for _, depth in drawn) <= WHOLE:
        return [_part(dag, depth, 1) for dag, depth in drawn]
    # Two kinds of segments may take turns, as in blocks with a transition: runs alone are joined.
    parts = []
    for (dag, depth), run in groupby(drawn):
        parts.append(_part(dag, depth, len(list(run))))
    return parts


def _part(dag: Dag, depth: int, times: int) -> dict[str, Any]:
    x, depths = _places(dag, _SKIP), _places(dag, 0.0)
    main = _main_path(dag, x)
    lanes, lane = [0] * dag.nodes, 0
    for node in range(dag.nodes):
        if node not in main:
            lane += 1
            # 1, -1, 2, -2, ...: branches on both sides of the main path.
            lanes[node] = (lane + 1) // 2 * (1 if lane % 2 else -1)
    return {
        "times": times,
        "depth": depth,
        "width": max(x[-1], _SKIP),
        "nodes": [
            [round(place, 3), level, int(deep)]
            for place, level, deep in zip(x, lanes, depths, strict=True)
        ],
        "edges": [[e.source, e.target, e.depth] for e in dag.edges],
    }


def _places(dag: Dag, skip: float) -> list[float]:
    places = [0.0] * dag.nodes
    for edge in dag.edges:
        there = places[edge.source] + (edge.depth or skip)
        places[edge.target] = max(places[edge.target], there)
    return places


def _main_path(dag: Dag, places: Sequence[float]) -> set[int]:
    """Return the nodes of a path that goes all the way along the axis."""
    node, found = dag.nodes - 1, {dag.nodes - 1}
    while node:
        entering = [e for e in dag.edges if e.target == node]
        node = max(entering, key=lambda e: _reach(e, places)).source
        found.add(node)
    return found


def _reach(edge: Edge, places: Sequence[float]) -> float:
    return places[edge.source] + (edge.depth or _SKIP)
