"""What the evidence supports saying of a network before it is trained, and that evidence."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tinygrow.connectivity.graph import Graph
from tinygrow.connectivity.learning_rate import depth_ratio
from tinygrow.connectivity.segments import Segment, Wiring

DEEP = 8
_LONG_CHAIN = 3
_CELLS = (
    "NAS-Bench-201, CIFAR-100, validation accuracy of cells of 3x3 convolutions with BatchNorm,"
    " n = 1 cell each"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One line.

    Attributes:
        level: an error is a fact about the network, such as parameters that nothing reads; all else
            is a suggestion.
        segment: number of the segment that it is about, from 1; None: the whole network.
        text: what and what to do.
        evidence: what stands behind it; empty for errors.
    """

    level: Literal["error", "warning", "advice"]
    segment: int | None
    text: str
    evidence: str = ""


def advise(wiring: Wiring, graph: Graph) -> list[Advice]:
    """Return errors first, then warnings, then advice."""
    found = [*_errors(wiring, graph), *_too_deep(wiring, graph)]
    for number, segment in enumerate(wiring.segments, 1):
        if segment.is_chain and len(segment.layers) >= _LONG_CHAIN:
            found.append(_skip_over(number, segment))
        elif _is_parallel(segment):
            found.append(
                Advice(
                    level="advice",
                    segment=number,
                    text="all of its paths have depth 1: one more parallel branch gains little;"
                    " deepen one of them instead",
                    evidence=f"depths {{1,1}} 67.2 %, {{1,1,1}} 67.2 %, {{1,1,1,1}} 66.6 %; of"
                    f" three layers {{1,2}} 69.5 %, {{0,3}} 71.9 % ({_CELLS})",
                )
            )
    return found


def _errors(wiring: Wiring, graph: Graph) -> Iterator[Advice]:
    if not wiring.paths.total:
        yield Advice(
            level="error",
            segment=None,
            text=f"no path leads from the input to {wiring.output}",
        )
    for what, layers in (
        ("lies on no path to an output: it is computed and dropped", wiring.dead),
        ("is never called: its parameters do nothing", graph.idle),
    ):
        for layer in layers:
            yield Advice(level="error", segment=None, text=f"{layer} {what}")


def _too_deep(wiring: Wiring, graph: Graph) -> Iterator[Advice]:
    shortest = wiring.paths.shortest
    if shortest <= DEEP or any(value.kind == "norm" for value in wiring.values):
        return
    seen = "" if graph.norms_known else ", unless BatchNorm was folded into the file's layers"
    yield Advice(
        level="warning",
        segment=None,
        text=f"each path has {shortest} layers or more and nothing normalises{seen}: at a small"
        " learning rate it will start slowly; a parameter-free skip, normalisation, or a learning"
        f" rate tuned downwards helps (a chain of {shortest - 1} hidden layers: about"
        f" {depth_ratio(1, max(shortest - 1, 1)):.2g} of the rate of one hidden layer)",
        evidence="8x8 digits, 16 linear layers, 60 steps at rate 3e-3: training loss 1.60, with a"
        " skip over every two 0.80; at tuned rates 0.77 and 0.80, level (2-3 seeds)",
    )


def _is_parallel(segment: Segment) -> bool:
    counts = segment.paths.counts
    return len(counts) == 2 and not counts[0] and counts[1] > 1 and not segment.foreign_merges


def _skip_over(number: int, segment: Segment) -> Advice:
    """Name values of a chain that a skip may join."""
    places = _joints(segment)
    pairs = list(_windows([segment.values[place].shape for place in places]))
    layers = len(segment.layers)
    if pairs:
        told = "; ".join(
            f"{_name(segment, places[i])} to {_name(segment, places[j])} over {j - i} layers"
            f" (shape {'x'.join(map(str, segment.values[places[i]].shape))})"
            for i, j in pairs[:4]
        )
        more = f" and {len(pairs) - 4} more" if len(pairs) > 4 else ""
        how = (
            f"parameter-free skips fit from {told}{more}; widths that a skip joins no longer grow"
            " by neurons"
        )
    else:
        how = (
            "no two of its values with two or three layers between have equal (known) shapes, so"
            " that a parameter-free skip would have to pool or pad; a 1x1 or 3x3 shortcut is one"
            " more layer and does less"
        )
    return Advice(
        level="advice",
        segment=number,
        text=f"one chain of {layers} layers, with no other path: {how}",
        evidence="at equal numbers of convolutions, depths {3} 59.9 %, {0,3} 71.9 %; {2} 63.8 %,"
        f" {{0,2}} 70.3 %; a 3x3 shortcut, {{1,3}}, 69.2 % with one layer more ({_CELLS})",
    )


def _joints(segment: Segment) -> list[int]:
    """Return the place of the value before each layer of a chain, and that of its end."""
    before = [place - 1 for place, value in enumerate(segment.values) if value.depth]
    return [*before, len(segment.values) - 1]


def _windows(shapes: list[tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    """Yield pairs of joints of equal shapes, two layers apart, or three where one would be left."""
    place = 0
    while place < len(shapes) - 2:
        same = [p for p in range(place, len(shapes)) if shapes[p] == shapes[place] != ()]
        width = 0
        while place + width + 1 in same:
            width += 1
        ends = [s for s in (2, 3) if place + s in same]
        if not ends:
            place += 1
            continue
        step = 3 if width == 3 and 3 in ends else ends[0]
        yield place, place + step
        place += step


def _name(segment: Segment, place: int) -> str:
    return segment.values[place].name
