"""The rung of linear bounds: each layer in turn, with what the layers before have gained."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from tinygrow.stability.crown import Lines, Side, backward_lines, slopes_of
from tinygrow.stability.found import Line, Slopes
from tinygrow.stability.interval import Bounds
from tinygrow.stability.ledger import Ledger
from tinygrow.stability.linear_maps import terms
from tinygrow.stability.program import (
    AveragePool,
    Convolution,
    Linear,
    Node,
    Program,
    ReLU,
    ScaleAndShift,
)

# Multiply-adds for the bounds of one node: some ten seconds of one core.
MOST_WORK = 5e10
_MOST_COEFFICIENTS = 500_000  # that lines are shipped with, 4 MB


@dataclass(frozen=True, slots=True)
class Tightened:
    """What the linear bounds have given.

    Attributes:
        bounds: of every node; those that ReLUs read are intersected with the lines'.
        lines: that prove units, and those that they lean on.
        slopes: of the ReLUs, by the name of the node that they read.
        notes: of layers that were too large.
    """

    bounds: Mapping[str, Bounds]
    lines: tuple[Line, ...]
    slopes: Mapping[str, Slopes]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Lines of one side of one node."""

    node: Node
    side: Side
    flat: torch.Tensor
    lines: Lines
    better: torch.Tensor


def tighten(ledger: Ledger, most_work: float = MOST_WORK) -> Tightened:
    """Bound what ReLUs read by lines, node by node, and settle units by them.

    A node is bounded at all numbers that may have either sign, where that is within the work
    allowed; else at those of units that may yet be proved; else not at all.

    Args:
        ledger: to fill in.
        most_work: multiply-adds for one node.
    """
    program, bounds = ledger.program, dict(ledger.bounds)
    slopes: dict[str, Slopes] = {}
    batches: list[_Batch] = []
    notes: list[str] = []
    open_at = [n for n in ledger.width if ledger.open(n, "inactive") or ledger.open(n, "active")]
    nodes = list(program.before_relus())
    names = [node.name for node in nodes]
    end = max((names.index(name) for name in open_at), default=-1)
    for node in nodes[: end + 1]:
        if not _is_first(program, node):
            flats = _targets(ledger, bounds, node, most_work)
            if flats is None:
                notes.append(f"{node.name}: too large for linear bounds")
            else:
                batches += _bounded(program, bounds, slopes, node, flats)
        slopes[node.name] = slopes_of(bounds[node.name])
        if node.name in ledger.width:
            ledger.settle_node(node, bounds[node.name], "crown")
    lines, used = _kept(ledger, batches)
    return Tightened(bounds, lines, slopes if used else {}, tuple(notes))


def _bounded(
    program: Program,
    bounds: dict[str, Bounds],
    slopes: Mapping[str, Slopes],
    node: Node,
    flats: Mapping[Side, torch.Tensor],
) -> list[_Batch]:
    """Bound numbers of a node, intersect its bounds with that, and return the lines."""
    batches = []
    for side, flat in flats.items():
        if not len(flat):
            continue
        lines = backward_lines(program, bounds, slopes, node.name, flat, side)
        old = bounds[node.name]
        ends = {"lower": old.lower.flatten().clone(), "upper": old.upper.flatten().clone()}
        before = ends[side][flat]
        better = lines.bounds < before if side == "upper" else lines.bounds > before
        ends[side][flat] = torch.where(better, lines.bounds, before)
        bounds[node.name] = old.within(*(ends[s].reshape(node.shape) for s in ("lower", "upper")))
        batches.append(_Batch(node, side, flat, lines, better))
    return batches


def _targets(
    ledger: Ledger, bounds: Mapping[str, Bounds], node: Node, most_work: float
) -> Mapping[Side, torch.Tensor] | None:
    """Return the flat indices of the numbers to bound from either side, or None: too many."""
    lower, upper = bounds[node.name].lower, bounds[node.name].upper
    either = ((lower < 0) & (upper > 0)).flatten().nonzero().flatten()
    each = _work(ledger.program, node)
    if 2 * len(either) * each <= most_work:
        return {"upper": either, "lower": either}
    if node.name not in ledger.width:
        return None
    units = {k: torch.zeros(node.shape[0], dtype=torch.bool) for k in ("inactive", "active")}
    units["inactive"][ledger.open(node.name, "inactive")] = True
    units["active"][ledger.open(node.name, "active")] = True
    wide = (-1, *[1] * (len(node.shape) - 1))
    above = (units["inactive"].reshape(wide) & (upper > 0)).flatten().nonzero().flatten()
    below = (units["active"].reshape(wide) & (lower < 0)).flatten().nonzero().flatten()
    if (len(above) + len(below)) * each > most_work:
        return None
    return {"upper": above, "lower": below}


def _work(program: Program, node: Node) -> float:
    """Return the multiply-adds of running backwards from one number of a node, at most."""
    before = program.nodes[: program.nodes.index(node) + 1]
    return float(
        sum(
            prod(n.shape) * terms(n, program[n.inputs[0]].shape)
            for n in before
            if isinstance(n, Convolution | Linear | ScaleAndShift | AveragePool)
        )
    )


def _is_first(program: Program, node: Node) -> bool:
    """Say whether a node is one affine operation of the image: its intervals are exact."""
    above, affine = node, 0
    while above.inputs:
        if len(above.inputs) > 1 or isinstance(above, ReLU):
            return False
        affine += isinstance(above, Convolution | Linear | ScaleAndShift | AveragePool)
        above = program[above.inputs[0]]
    return affine <= 1


def _kept(ledger: Ledger, batches: list[_Batch]) -> tuple[tuple[Line, ...], bool]:
    """Return the lines that proofs are made of, and those that made them tighter."""
    proved = {
        name: {(p.index, p.kind) for p in proofs.values() if p.method == "crown"}
        for name, proofs in ledger.proofs.items()
    }
    last = max((i for i, b in enumerate(batches) if proved.get(b.node.name)), default=-1)
    kept: list[Line] = []
    room = _MOST_COEFFICIENTS
    for i, batch in enumerate(batches[: last + 1]):
        kind = "inactive" if batch.side == "upper" else "active"
        positions = prod(batch.node.shape[1:])
        later = any(proved.get(b.node.name) for b in batches[i + 1 :] if b.node is not batch.node)
        for row in batch.better.nonzero().flatten().tolist():
            unit, position = divmod(int(batch.flat[row]), positions)
            proves = (unit, kind) in proved.get(batch.node.name, ())
            if not (proves or later):
                continue
            coefficients = batch.lines.coefficients[row]
            room -= coefficients.numel() if proves else 0
            kept.append(
                Line(
                    layer=batch.node.name,
                    unit=unit,
                    position=position,
                    side=batch.side,
                    bound=float(batch.lines.bounds[row]),
                    constant=float(batch.lines.constants[row]),
                    coefficients=coefficients.clone() if proves and room >= 0 else None,
                )
            )
    return tuple(kept), bool(kept)
