"""A network between the values that all paths go through: the cells it is a chain of."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tinygrow.connectivity.dag import Dag, Edge
from tinygrow.connectivity.graph import Graph, Value, simplified
from tinygrow.connectivity.paths import Paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a network that is entered at one value and left at one.

    Attributes:
        values: the first is where it is entered, the last where it is left; their `inputs` count
            within the segment.
        dag: of the values.
        paths: through it.
    """

    values: tuple[Value, ...]
    dag: Dag
    paths: Paths

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of its parameterised operations, in order; one called twice is there twice."""
        return tuple(v.name for v in self.values[1:] for _ in range(v.depth))

    @property
    def is_chain(self) -> bool:
        """Whether it is one path."""
        return self.paths.total == 1

    @property
    def has_identity_path(self) -> bool:
        """Whether some path leaves the numbers as they are: no layer, pooling or activation."""
        reached = [True]
        for value in self.values[1:]:
            passes = not value.depth and value.kind in ("identity", "add", "concat")
            reached.append(passes and any(reached[i] for i in value.inputs))
        return reached[-1] and len(self.values) > 1

    @property
    def has_norm(self) -> bool:
        """Whether anything in it normalises."""
        return any(v.kind == "norm" for v in self.values[1:])

    @property
    def foreign_merges(self) -> tuple[str, ...]:
        """Kinds of merges in it that the theory, which sums paths, does not cover."""
        kinds = {v.kind for v in self.values[1:] if len(v.inputs) > 1 or v.kind == "attention"}
        return tuple(kind for kind in ("concat", "product", "attention") if kind in kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """All that one output of a network hangs on.

    Attributes:
        output: its name.
        paths: from the input to it.
        segments: those that hold a layer or a second path, in order.
        values: that lie on a path, the input first.
        dead: layers that are called, but lie on no path to any output.
    """

    output: str
    paths: Paths
    segments: tuple[Segment, ...]
    values: tuple[Value, ...]
    dead: tuple[str, ...]

    @property
    def depths(self) -> tuple[Paths, ...]:
        """The paths of each segment, which tell two wirings apart."""
        return tuple(segment.paths for segment in self.segments)


def wirings(graph: Graph, *, layers_alone: bool = False) -> tuple[Wiring, ...]:
    """Return the wiring of each output of a network.

    Args:
        graph: from a reader.
        layers_alone: see `every_merge` of `simplified`.
    """
    values = simplified(graph.values, every_merge=layers_alone)
    alive = set().union(*(_behind(values, sink) for _, sink in graph.outputs))
    dead = tuple(v.name for i, v in enumerate(values) if v.depth and i not in alive)
    return tuple(_wiring(values, name, sink, dead) for name, sink in graph.outputs)


def _wiring(values: Sequence[Value], output: str, sink: int, dead: tuple[str, ...]) -> Wiring:
    """Return what one output hangs on; a network that gives its input back has no segment."""
    live = tuple(sorted(_behind(values, sink)))
    if 0 not in live:
        return Wiring(output=output, paths=Paths(), segments=(), values=(), dead=dead)
    kept = _renumbered(values, live)
    whole = _dag(kept)
    pieces: list[tuple[int, int]] = []
    cuts = whole.cuts()
    before, _ = whole.counts()
    single = False
    for start, end in pairwise(cuts):
        is_single = before[end] == before[start]
        if is_single and single:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
        single = is_single
    segments = [_segment(kept, start, end) for start, end in pieces]
    return Wiring(
        output=output,
        paths=whole.paths(),
        segments=tuple(s for s in segments if s.layers or not s.is_chain),
        values=kept,
        dead=dead,
    )


def _segment(values: Sequence[Value], start: int, end: int) -> Segment:
    inside = _renumbered(values, tuple(range(start, end + 1)))
    dag = _dag(inside)
    return Segment(values=inside, dag=dag, paths=dag.paths())


def _dag(values: Sequence[Value]) -> Dag:
    edges = (Edge(i, n, value.depth) for n, value in enumerate(values) for i in value.inputs)
    return Dag(len(values), tuple(edges))


def _renumbered(values: Sequence[Value], kept: tuple[int, ...]) -> tuple[Value, ...]:
    """Return some of the values; the first loses its inputs."""
    number = {old: new for new, old in enumerate(kept)}
    first, *rest = (values[old] for old in kept)
    head = Value(first.name, (), 0, first.kind, first.shape)
    return (
        head,
        *(
            Value(v.name, tuple(number[i] for i in v.inputs), v.depth, v.kind, v.shape)
            for v in rest
        ),
    )


def _behind(values: Sequence[Value], sink: int) -> set[int]:
    """Return the values that a value hangs on, itself among them."""
    found, waiting = set[int](), [sink]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += values[number].inputs
    return found
