"""Networks as mixed-integer programs: one binary number for each ReLU that may be on or off.

With y = w . x + b in [l, u] the output x is described by y = x - s, 0 <= x <= u z and
0 <= s <= -l (1 - z), z in {0, 1} (exact_compression.md 1.1). Where bounds have settled the sign,
x = y or x = 0 and no binary number is needed. Sums over candidates are asked about:
p = 1 says y >= -margin of a unit that may be inactive, q = 1 says y <= margin of one that may be
active. The margin is a share of the absolute sum behind y, ten times what a solver's tolerance of
1e-6 on the binary numbers can move it; for one that may be inactive it is no less than what float32
may stray by either, as only what float32 shows as zero may go. What is infeasible with it, is so
without.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch

from tinygrow.stability.affine import affine_sum
from tinygrow.stability.found import Kind
from tinygrow.stability.interval import Bounds
from tinygrow.stability.program import Node, Program

MARGIN = 1e-5
MOST_COEFFICIENTS = 8_000_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A number that may be on one side of zero for every image.

    Attributes:
        layer: node that gives it.
        unit: channel or unit.
        flat: flat index of the number.
        kind: `inactive`: it may never be above 0.
    """

    layer: str
    unit: int
    flat: int
    kind: Kind


@dataclass(slots=True)
class Rows:
    """A linear program as it grows: columns with bounds, rows with bounds and entries.

    Attributes:
        lower: of the columns.
        upper: of the columns.
        binary: the columns that are 0 or 1.
        row_lower: of the rows.
        row_upper: of the rows.
        starts: of each row in `columns` and `values`.
        columns: of the entries.
        values: of the entries.
    """

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    binary: list[int] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def column(self, lower: float, upper: float, *, binary: bool = False) -> int:
        """Add a column and return its number."""
        self.lower.append(lower)
        self.upper.append(upper)
        if binary:
            self.binary.append(len(self.lower) - 1)
        return len(self.lower) - 1

    def row(
        self, columns: Sequence[int], values: Sequence[float], lower: float, upper: float
    ) -> None:
        """Add a row `lower <= values . columns <= upper`."""
        self.columns += columns
        self.values += values
        self.starts.append(len(self.columns))
        self.row_lower.append(lower)
        self.row_upper.append(upper)


class Encoding:
    """The program of all that stands before a node, and of candidates.

    Args:
        program: of the network.
        bounds: of every node.
        last: the node whose numbers nobody needs to read.
        goal: a number of `last` that alone is to be maximised (`inactive`) or minimised. Then no
            binary number is needed for a ReLU that enters it with a coefficient that keeps its
            output down: at the optimum the output is the greater of y and 0 by itself.

    Attributes:
        rows: the program.
        image: columns of the image, flat; the first ones.
        failed: why it cannot be written, in words; empty where it can.
    """

    def __init__(
        self,
        program: Program,
        bounds: Mapping[str, Bounds],
        last: Node,
        goal: Candidate | None = None,
    ) -> None:
        self.program, self.bounds, self.last = program, bounds, last
        self._kept_down = self._find_kept_down(goal)
        self.rows = Rows()
        self.failed = ""
        box = bounds[program.input.name]
        ends = zip(box.lower.flatten().tolist(), box.upper.flatten().tolist(), strict=True)
        self.image = [self.rows.column(low, high) for low, high in ends]
        # Columns of a source's numbers; None: always 0. Of y itself: entries and a constant.
        self._outputs: dict[str, list[int | None]] = {program.input.name: list(self.image)}
        self._y: dict[tuple[str, int], tuple[list[int], list[float]]] = {}
        needed = [n for n in program.before_relus() if self._before(n, last)]
        for node in needed:
            if not self.failed:
                self._relus(node)

    def _find_kept_down(self, goal: Candidate | None) -> Mapping[str, torch.Tensor]:
        """Return, for sources of the goal that nothing else reads, which outputs it keeps down."""
        if goal is None:
            return {}
        found = affine_sum(self.program, self.last, torch.tensor([goal.flat]), MOST_COEFFICIENTS)
        if found is None:
            return {}
        sign = 1.0 if goal.kind == "inactive" else -1.0
        others = [n for n in self.program.before_relus() if self._before(n, self.last)]
        read: set[str] = set()
        for node in others:
            sources = affine_sum(self.program, node, torch.tensor([0]), MOST_COEFFICIENTS)
            read.update(sources.matrices if sources is not None else (n.name for n in others))
        return {
            name: sign * matrix[0] <= 0
            for name, matrix in found.matrices.items()
            if name not in read
        }

    def _before(self, node: Node, last: Node) -> bool:
        nodes = self.program.nodes
        return nodes.index(node) < nodes.index(last)

    def margin(self, candidate: Candidate) -> float:
        """Return how far beyond zero a candidate has to be."""
        bounds = self.bounds[candidate.layer]
        margin = MARGIN * max(float(bounds.size.flatten()[candidate.flat]), 1e-3)
        if candidate.kind == "active":
            return margin
        return max(margin, float(bounds.drift[candidate.unit].max()))

    def ask(self, candidates: Sequence[Candidate]) -> list[int | None]:
        """Add p or q of each candidate; return the columns, None where its bounds are too narrow.

        None as well where the number cannot be written; `failed` says so.
        """
        columns: list[int | None] = []
        for candidate in candidates:
            y = self.number(candidate)
            lower, upper = self.ends(candidate)
            margin = self.margin(candidate)
            if y is None or (lower >= -margin if candidate.kind == "inactive" else upper <= margin):
                columns.append(None)
                continue
            column = self.rows.column(0.0, 1.0, binary=True)
            entries, values = y
            if candidate.kind == "inactive":
                values = [*values, lower + margin]
                self.rows.row([*entries, column], values, lower, torch.inf)
            else:
                values = [*values, upper - margin]
                self.rows.row([*entries, column], values, -torch.inf, upper)
            columns.append(column)
        return columns

    def ends(self, candidate: Candidate) -> tuple[float, float]:
        """Return the bounds of a candidate's number."""
        bounds = self.bounds[candidate.layer]
        return (
            float(bounds.lower.flatten()[candidate.flat]),
            float(bounds.upper.flatten()[candidate.flat]),
        )

    def number(self, candidate: Candidate) -> tuple[list[int], list[float]] | None:
        """Return columns and values whose sum is the pre-activation, or None."""
        key = (candidate.layer, candidate.flat)
        if key not in self._y and not self.failed:
            node = self.program[candidate.layer]
            self._numbers(node, torch.tensor([candidate.flat]))
        return self._y.get(key)

    def _relus(self, node: Node) -> None:
        """Add the ReLUs that read a node."""
        bounds = self.bounds[node.name]
        lower, upper = bounds.lower.flatten(), bounds.upper.flatten()
        outputs: list[int | None] = [None] * prod(node.shape)
        down = self._kept_down.get(node.name)
        live = (upper > 0).nonzero().flatten()
        self._numbers(node, live)
        if self.failed:
            return
        for i in live.tolist():
            low, high = float(lower[i]), float(upper[i])
            entries, values = self._y[node.name, i]
            if low >= 0:
                outputs[i] = entries[0]
                continue
            x = outputs[i] = self.rows.column(0.0, high)
            if down is not None and down[i]:
                self.rows.row([x, *entries], [1.0, *(-v for v in values)], 0.0, torch.inf)
                continue
            s = self.rows.column(0.0, -low)
            z = self.rows.column(0.0, 1.0, binary=True)
            self.rows.row([x, s, *entries], [1.0, -1.0, *(-v for v in values)], 0.0, 0.0)
            self.rows.row([x, z], [1.0, -high], -torch.inf, 0.0)
            self.rows.row([s, z], [1.0, -low], -torch.inf, -low)
        self._outputs[node.name] = outputs

    def _numbers(self, node: Node, flat: torch.Tensor) -> None:
        """Add one column for each pre-activation and the row that defines it."""
        if not len(flat):
            return
        bounds = self.bounds[node.name]
        finite = bounds.magnitude.flatten()[flat].isfinite().all()
        found = affine_sum(self.program, node, flat, MOST_COEFFICIENTS) if finite else None
        if found is None:
            self.failed = f"{node.name} is no sum of ReLUs and pixels, or too large a one"
            return
        sources = [
            ([c for c in outputs if c is not None], [c is not None for c in outputs], name)
            for name, outputs in self._outputs.items()
            if name in found.matrices
        ]
        for row, i in enumerate(flat.tolist()):
            y = self.rows.column(float(bounds.lower.flatten()[i]), float(bounds.upper.flatten()[i]))
            columns, values = [y], [-1.0]
            for live, mask, name in sources:
                numbers = found.matrices[name][row][torch.tensor(mask)].tolist()
                for column, value in zip(live, numbers, strict=True):
                    if value != 0.0:
                        columns.append(column)
                        values.append(value)
            constant = -float(found.constant[row])
            self.rows.row(columns, values, constant, constant)
            self._y[node.name, i] = [y], [1.0]
