"""A directed acyclic graph whose edges carry parameters or none."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Self

from tinygrow.connectivity.paths import Paths
from tinygrow.errors import TinygrowError

_CODE = re.compile(r"[012](_[012]+)*")


@dataclass(frozen=True, slots=True)
class Edge:
    """From one node to a later one.

    Attributes:
        source: number of the node it comes from.
        target: number of the node it enters, greater than `source`.
        depth: parameterised operations on it: 1 for a layer, 0 for a skip or pooling.
    """

    source: int
    target: int
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Dag:
    """Nodes that sum up what enters them; the first is the source, the last the sink.

    Attributes:
        nodes: how many there are.
        edges: in order of their sources; two nodes may be joined by several.
    """

    nodes: int
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        for edge in self.edges:
            if not 0 <= edge.source < edge.target < self.nodes or edge.depth < 0:
                raise ValueError(f"{edge} does not lead to a later one of {self.nodes} nodes")
        ordered = sorted(self.edges, key=attrgetter("source", "target", "depth"))
        object.__setattr__(self, "edges", tuple(ordered))

    @classmethod
    def from_code(cls, code: str) -> Self:
        """Return the DAG of a code such as `2_21_112`: one group for each node but the source.

        The digits of a group are the edges from node 0, 1, 2 and so on: 0 for none, 1 for a skip,
        2 for a layer.

        Raises:
            TinygrowError: it is no such code.
        """
        groups = code.split("_")
        if not _CODE.fullmatch(code) or any(len(g) != i for i, g in enumerate(groups, 1)):
            raise TinygrowError(
                f"the code is {code!r}; it must hold groups of 1, 2, 3, ... digits from 0 to 2,"
                " such as 2_21_112"
            )
        edges = (
            Edge(source, target, int(digit) - 1)
            for target, group in enumerate(groups, 1)
            for source, digit in enumerate(group)
            if digit != "0"
        )
        return cls(len(groups) + 1, tuple(edges))

    def paths(self) -> Paths:
        """Return the paths from source to sink, by their depth.

        One pass over the edges, in integers: N_v[t] sums N_u[t - depth] over the edges that enter v
        (dossier 3.1).
        """
        entering: list[list[Paths]] = [[] for _ in range(self.nodes)]
        entering[0].append(Paths((1,)))
        outgoing: list[list[Edge]] = [[] for _ in range(self.nodes)]
        for edge in self.edges:
            outgoing[edge.source].append(edge)
        for node in range(self.nodes - 1):
            here, entering[node] = _together(entering[node]), []
            for edge in outgoing[node]:
                if here.counts:
                    entering[edge.target].append(here.deeper(edge.depth))
        return _together(entering[-1])

    def counts(self) -> tuple[list[int], list[int]]:
        """Return, for each node, its paths from the source and its paths to the sink."""
        before, after = [0] * self.nodes, [0] * self.nodes
        before[0] = after[-1] = 1
        for edge in self.edges:  # in order of their sources, which is one of depth
            before[edge.target] += before[edge.source]
        for edge in reversed(self.edges):
            after[edge.source] += after[edge.target]
        return before, after

    def dead_edges(self) -> tuple[Edge, ...]:
        """Return the parameterised edges that no path from source to sink goes through."""
        before, after = self.counts()
        return tuple(
            e for e in self.edges if e.depth and not (before[e.source] and after[e.target])
        )

    def cuts(self) -> list[int]:
        """Return the nodes that every path goes through, source and sink among them."""
        before, after = self.counts()
        return [v for v in range(self.nodes) if before[v] * after[v] == after[0] > 0]

    def contracted(self) -> Self:
        """Return the smallest DAG with the same paths: needless nodes on skips are left out.

        A skip whose end nothing else enters, or whose beginning nothing else leaves, is drawn
        together to one node. Nodes that no path goes through go as well.
        """
        before, after = self.counts()
        sink = self.nodes - 1
        edges = [e for e in self.edges if before[e.source] and after[e.target]]
        while (joined := _join(edges, sink)) is not None:
            edges = joined
        kept = sorted({0, sink}.union(*((e.source, e.target) for e in edges)))
        number = {old: new for new, old in enumerate(kept)}
        return type(self)(
            len(kept), tuple(Edge(number[e.source], number[e.target], e.depth) for e in edges)
        )


def _together(entering: list[Paths]) -> Paths:
    if len(entering) < 2:
        return entering[0] if entering else Paths()
    return entering[0].beside(*entering[1:])


def _join(edges: list[Edge], sink: int) -> list[Edge] | None:
    """Draw one skip together, or return None where none may be."""
    leaving, arriving = Counter(e.source for e in edges), Counter(e.target for e in edges)
    for place, edge in enumerate(edges):
        if edge.depth:
            continue
        rest = edges[:place] + edges[place + 1 :]
        if arriving[edge.target] == 1 and edge.target != sink:
            return [_renamed(e, edge.target, edge.source) for e in rest]
        if leaving[edge.source] == 1 and edge.source != 0:
            return [_renamed(e, edge.source, edge.target) for e in rest]
    return None


def _renamed(edge: Edge, old: int, new: int) -> Edge:
    source = new if edge.source == old else edge.source
    target = new if edge.target == old else edge.target
    return Edge(source, target, edge.depth)


def series(parts: Iterable[Dag]) -> Dag:
    """Return DAGs one behind the other, each one's sink being the next one's source."""
    edges: list[Edge] = []
    offset = 0
    for part in parts:
        edges += [Edge(e.source + offset, e.target + offset, e.depth) for e in part.edges]
        offset += part.nodes - 1
    return Dag(offset + 1, tuple(edges))


def parallel(parts: Iterable[Dag]) -> Dag:
    """Return DAGs beside each other, with one source and one sink."""
    listed = list(parts)
    inner = [max(part.nodes - 2, 0) for part in listed]
    sink, edges, offset = sum(inner) + 1, list[Edge](), 0
    for part, count in zip(listed, inner, strict=True):
        places = [0, *range(offset + 1, offset + count + 1), sink]
        edges += [Edge(places[e.source], places[e.target], e.depth) for e in part.edges]
        offset += count
    return Dag(sink + 1, tuple(edges))
