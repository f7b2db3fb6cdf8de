"""Two ways to ask a solver: one program for all units at once (ISA), or two for each (LEO).

ISA (Serra, Yu, Kumar, Ramalingam 2021; exact_compression.md 1.3) counts how many units one image
can show on a side on which they were never seen, and maximises that. A point gives an image, run
through the network for what else it shows; where the maximum is below 1, all units left over are
stable. Solvers without callbacks for lazy constraints are simply asked again, with a new objective.
A linear relaxation is asked before each program: it gives images as well and may prove all by
itself. What was interrupted by the clock proves nothing.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from tinygrow.stability.encoding import Candidate, Encoding
from tinygrow.stability.evaluate import inside
from tinygrow.stability.found import Kind
from tinygrow.stability.interval import Bounds
from tinygrow.stability.ledger import Ledger
from tinygrow.stability.program import Node
from tinygrow.stability.solver import Answer, maximise

_KINDS: tuple[Kind, Kind] = ("inactive", "active")
_Unit = tuple[str, int, Kind]


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a rung of programs.

    Attributes:
        solves: programs and relaxations that were given to the solver.
        timed_out: of them, those that the clock ended.
        notes: in words: what was left, and why.
    """

    solves: int
    timed_out: int
    notes: tuple[str, ...]


def ask_at_once(ledger: Ledger, bounds: Mapping[str, Bounds], seconds: float) -> Asked:
    """Settle all open units by the one program of ISA.

    Args:
        ledger: to fill in.
        bounds: of every node, the tightest known.
        seconds: for everything.
    """
    end = time.monotonic() + seconds
    encoding, columns, notes = _encode(ledger, bounds)
    solves = 0
    while columns:
        objective = [(column, 1.0) for asked in columns.values() for column in asked]
        answer = None
        for relaxed in (True, False):
            left = end - time.monotonic()
            if left <= 0:
                notes.append(f"time was up for {len(columns)} units")
                return Asked(solves, 1, tuple(notes))
            answer = maximise(
                encoding.rows,
                objective,
                seconds=left,
                enough=1.0,
                hopeless=0.5,
                relaxed=relaxed,
            )
            solves += 1
            if answer.bound < 0.5:
                _prove(ledger, encoding, columns)
                return Asked(solves, 0, tuple(notes))
            before = len(columns)
            columns = _not_seen(ledger, encoding, columns, answer)
            if len(columns) < before:
                break
        else:
            assert answer is not None
            tied = _claimed(columns, answer)
            if not tied:
                notes.append(f"the solver came to no end with {len(columns)} units")
                return Asked(solves, 1, tuple(notes))
            notes += [f"{n} {i}: may be within rounding of zero" for n, i, _ in sorted(tied)]
            columns = {unit: asked for unit, asked in columns.items() if unit not in tied}
    return Asked(solves, 0, tuple(notes))


def ask_one_by_one(
    ledger: Ledger,
    bounds: Mapping[str, Bounds],
    seconds: float,
    *,
    each: float = 60.0,
    units: Callable[[str, Kind], Sequence[int]] | None = None,
    lean: bool = True,
) -> Asked:
    """Settle units by a program each, the baseline of LEO: is the greatest y above 0?

    Args:
        ledger: to fill in.
        bounds: of every node.
        seconds: for everything.
        each: for one program.
        units: of a layer and kind to ask about; None: those that are open.
        lean: leave out binary numbers that the sign of a coefficient makes needless, for a program
            of its own for each unit.
    """
    end = time.monotonic() + seconds
    chosen = units or ledger.open
    solves = timed_out = 0
    notes: list[str] = []
    for layer in ledger.layers:
        asked = [(i, kind) for kind in _KINDS for i in chosen(layer.name, kind)]
        if not asked:
            continue
        encoding = Encoding(ledger.program, bounds, layer)
        if encoding.failed:
            notes.append(encoding.failed)
            continue
        for unit, kind in asked:
            margins: list[float] = []
            for candidate in _candidates(bounds, layer, unit, kind):
                left = min(end - time.monotonic(), each)
                if left <= 0:
                    notes.append(f"time was up at unit {unit} of {layer.name}")
                    return Asked(solves, timed_out, tuple(notes))
                if lean:
                    encoding = Encoding(ledger.program, bounds, layer, candidate)
                answer, margin = _ask_about(ledger, encoding, candidate, left)
                solves += 1
                if answer.bound > -margin:
                    timed_out += answer.point is None or answer.value <= 0
                    break
                margins.append(margin)
            else:
                if margins:
                    bound = _bound(bounds, layer, unit, kind, margins)
                    ledger.prove(layer.name, unit, kind, bound, "milp")
    return Asked(solves, timed_out, tuple(notes))


def _ask_about(
    ledger: Ledger, encoding: Encoding, candidate: Candidate, seconds: float
) -> tuple[Answer, float]:
    """Maximise y, or -y, of one number until its sign is sure; show the ledger the image."""
    y = encoding.number(candidate)
    margin = encoding.margin(candidate)
    if y is None:
        return Answer(float("inf"), None, 0.0), margin
    sign = 1.0 if candidate.kind == "inactive" else -1.0
    objective = [(column, sign * value) for column, value in zip(*y, strict=True)]
    answer = maximise(encoding.rows, objective, seconds=seconds, enough=margin, hopeless=-margin)
    if answer.point is not None and answer.value > 0:
        _show(ledger, encoding, answer)
    return answer, margin


def _encode(
    ledger: Ledger, bounds: Mapping[str, Bounds]
) -> tuple[Encoding, dict[_Unit, list[int]], list[str]]:
    """Write the program of all layers up to the last one that can be written and has open units."""
    notes: list[str] = []
    wanted = [layer for layer in ledger.layers if any(ledger.open(layer.name, k) for k in _KINDS)]
    if not wanted:
        return Encoding(ledger.program, bounds, ledger.program.nodes[0]), {}, notes
    while True:
        encoding = Encoding(ledger.program, bounds, wanted[-1])
        columns: dict[_Unit, list[int]] = {}
        for layer in wanted:
            for kind in _KINDS:
                for unit in ledger.open(layer.name, kind):
                    asked = encoding.ask(list(_candidates(bounds, layer, unit, kind)))
                    known = [column for column in asked if column is not None]
                    if len(known) == len(asked):
                        columns[layer.name, unit, kind] = known
        if not encoding.failed or len(wanted) == 1:
            notes += [encoding.failed] if encoding.failed else []
            return encoding, {} if encoding.failed else columns, notes
        notes.append(encoding.failed)
        wanted.pop()


def _candidates(
    bounds: Mapping[str, Bounds], layer: Node, unit: int, kind: Kind
) -> Sequence[Candidate]:
    """Return the numbers of a unit that bounds have not settled."""
    found = bounds[layer.name]
    beyond = found.upper > 0 if kind == "inactive" else found.lower < 0
    positions = beyond.reshape(layer.shape[0], -1)
    return [
        Candidate(layer.name, unit, unit * positions.shape[1] + p, kind)
        for p in positions[unit].nonzero().flatten().tolist()
    ]


def _show(ledger: Ledger, encoding: Encoding, answer: Answer) -> None:
    """Run the image of a point, and the nearest corner of the box, through the network."""
    assert answer.point is not None
    shape = ledger.program.input.shape
    image = torch.from_numpy(answer.point[encoding.image]).reshape(1, *shape)
    lower, upper = (
        v.reshape(-1, 1, 1) for v in (ledger.program.input.lower, ledger.program.input.upper)
    )
    corner = torch.where(image > (lower + upper) / 2, upper, lower)
    ledger.see(inside(ledger.program, torch.cat([image, corner]).float()))


def _not_seen(
    ledger: Ledger, encoding: Encoding, columns: dict[_Unit, list[int]], answer: Answer
) -> dict[_Unit, list[int]]:
    """Show the ledger an answer's image and return what is still open."""
    if answer.point is not None:
        _show(ledger, encoding, answer)
    still = {(n, i, k) for n in ledger.width for k in _KINDS for i in ledger.open(n, k)}
    return {unit: asked for unit, asked in columns.items() if unit in still}


def _claimed(columns: Mapping[_Unit, list[int]], answer: Answer) -> set[_Unit]:
    """Return the units that a point claims to show, though running its image did not.

    They are within the margin of zero there, and cannot be told from it.
    """
    if answer.point is None:
        return set()
    point = answer.point
    return {unit for unit, asked in columns.items() if any(point[c] > 0.5 for c in asked)}


def _prove(ledger: Ledger, encoding: Encoding, columns: Mapping[_Unit, list[int]]) -> None:
    for (name, unit, kind), _ in columns.items():
        layer = ledger.program[name]
        margins = [encoding.margin(c) for c in _candidates(encoding.bounds, layer, unit, kind)]
        if margins:
            bound = _bound(encoding.bounds, layer, unit, kind, margins)
            ledger.prove(name, unit, kind, bound, "milp")


def _bound(
    bounds: Mapping[str, Bounds], layer: Node, unit: int, kind: Kind, margins: Sequence[float]
) -> float:
    """Return the bound of a unit: of what the solver proved, and of what bounds had settled."""
    found = bounds[layer.name]
    beyond = found.upper[unit] if kind == "inactive" else -found.lower[unit]
    settled = beyond[beyond <= 0].tolist()
    worst = max([-min(margins), *settled])
    return worst if kind == "inactive" else -worst
