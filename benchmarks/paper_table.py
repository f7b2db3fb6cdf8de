"""The tables of `benchmarks.paper`: what each design came to, and how sure differences are."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise

from benchmarks.paper_cells import NEVER, SCRATCH, Cell, Design
from benchmarks.rows import Cell as Figure
from benchmarks.rows import half_width
from tinygrow.report import numbers

METHODS = {
    "tiny": "TINY",
    "gradmax": "GradMax",
    "random": "random",
    NEVER: "never grown",
    SCRATCH: "from scratch",
}
"""Methods in the order of tables and pictures; others follow by their names."""

_UNITS = {0: "", 3: "10³", 6: "10⁶", 9: "10⁹", 12: "10¹²", 15: "10¹⁵", 18: "10¹⁸"}
_SLACK = 1.01  # batches are whole, so that image passes that are meant to be equal differ a little

COLUMNS: dict[str, Callable[[Cell], float | None]] = {
    "growth_accuracy": lambda cell: cell.growth_accuracy,
    "growth_test_accuracy": lambda cell: cell.growth_test_accuracy,
    "final_accuracy": lambda cell: cell.final_accuracy,
    "test_accuracy": lambda cell: cell.test_accuracy,
    "epochs": lambda cell: cell.epochs,
    "growth_seconds": lambda cell: cell.growth_seconds,
    "finetune_seconds": lambda cell: cell.finetune_seconds,
    "growth_training": lambda cell: cell.growth_training,
    "growth_own": lambda cell: cell.growth_own,
    "finetuning": lambda cell: cell.finetuning,
    "multiply_adds": lambda cell: cell.multiply_adds,
    "parameters": lambda cell: cell.parameters,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One design against another of the same setting, in points of accuracy.

    Attributes:
        one: from which `other` is taken.
        other: see `one`.
        seeds: cells of both.
        growth: of validation accuracy at the end of growth, and half its 95 % interval.
        equal: of validation accuracy at the end, less that of `other` after as many image passes.
        test: of test accuracy at the end.
        seconds: share of the other's.
        multiply_adds: share of the other's.
    """

    one: Design
    other: Design
    seeds: tuple[int, int]
    growth: tuple[float, float | None] | None
    equal: tuple[float, float | None] | None
    test: tuple[float, float | None]
    seconds: float
    multiply_adds: float


def label(method: str) -> str:
    """Return what a method is called."""
    return METHODS.get(method, method)


def by_design(cells: Iterable[Cell]) -> dict[Design, list[Cell]]:
    """Return the cells of each design: starts and Delta t together, methods in their order."""
    groups: dict[Design, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.design, []).append(cell)
    known = list(METHODS)

    def place(design: Design) -> tuple[object, ...]:
        last = design.method == SCRATCH
        order = known.index(design.method) if design.method in known else len(known)
        return (*design.setting, last, -design.start, design.epochs_between, order, design.method)

    return {design: groups[design] for design in sorted(groups, key=place)}


def figure_of(values: Iterable[float | None]) -> Figure | None:
    """Return mean and sample deviation; None where a value is missing."""
    kept = list(values)
    known = [value for value in kept if value is not None and not math.isnan(value)]
    if not known or len(known) < len(kept):
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Figure(statistics.fmean(known), deviation, len(known))


def summarise(cells: Iterable[Cell]) -> dict[Design, dict[str, Figure | None]]:
    """Return mean and deviation of every column, by design."""
    return {
        design: {name: figure_of(map(column, group)) for name, column in COLUMNS.items()}
        for design, group in by_design(cells).items()
    }


def differences(cells: Sequence[Cell]) -> list[Difference]:
    """Compare the methods of one start and Delta t, and each with the full width from scratch."""
    groups = by_design(cells)
    found = []
    for one, other in combinations(groups, 2):
        alike = one.setting == other.setting
        if alike and (one.column == other.column or other.method == SCRATCH):
            found.append(_difference(one, groups[one], other, groups[other]))
    return found


def _difference(one: Design, ours: list[Cell], other: Design, theirs: list[Cell]) -> Difference:
    passes = statistics.fmean(cell.curve[-1].images for cell in ours)
    equal = [at_passes(cell, passes) for cell in theirs]
    test = _less([c.test_accuracy for c in ours], [c.test_accuracy for c in theirs])
    assert test is not None
    mean = statistics.fmean
    return Difference(
        one=one,
        other=other,
        seeds=(len(ours), len(theirs)),
        growth=_less([c.growth_accuracy for c in ours], [c.growth_accuracy for c in theirs]),
        equal=_less([c.final_accuracy for c in ours], equal),
        test=test,
        seconds=_ratio(mean(c.seconds for c in ours), mean(c.seconds for c in theirs)),
        multiply_adds=_ratio(
            mean(c.multiply_adds for c in ours), mean(c.multiply_adds for c in theirs)
        ),
    )


def at_passes(cell: Cell, passes: float) -> float | None:
    """Return the validation accuracy after so many image passes, between looks on a line.

    Args:
        cell: of which a log is kept.
        passes: of training.

    Returns:
        None where the cell was trained on fewer.
    """
    end = cell.curve[-1]
    if end.images <= passes <= end.images * _SLACK:
        return end.accuracy
    for before, after in pairwise(cell.curve):
        if before.images <= passes <= after.images:
            width = after.images - before.images
            share = (passes - before.images) / width if width else 1.0
            return before.accuracy + share * (after.accuracy - before.accuracy)
    return None


def _less(
    ours: Sequence[float | None], theirs: Sequence[float | None]
) -> tuple[float, float | None] | None:
    """Return a difference of means and half its 95 % interval (Welch)."""
    a, b = figure_of(ours), figure_of(theirs)
    return None if a is None or b is None else (a.mean - b.mean, half_width(a, b))


def _ratio(one: float, other: float) -> float:
    return one / other if other else math.nan


def results_table(cells: Sequence[Cell]) -> list[str]:
    """Return the lines of the table of one setting."""
    table = summarise(cells)
    most = max(cell.growth_training + cell.finetuning for cell in cells)
    power = 3 * min(int(math.log10(most)) // 3, 6) if most >= 1 else 0
    tested = any(row["growth_test_accuracy"] for row in table.values())
    head = {
        "growth_accuracy": "validation, end of growth (%)",
        "growth_test_accuracy": "test, end of growth (%)",
        "final_accuracy": "validation, end (%)",
        "test_accuracy": "test, end (%)",
        "epochs": "epochs after growth",
        "growth_seconds": "time of growth",
        "finetune_seconds": "time after it",
        "growth_training": "training in growth",
        "growth_own": "growth's own",
        "finetuning": "training after growth",
        "multiply_adds": "all multiply-adds",
        "parameters": "parameters",
    }
    if not tested:
        del head["growth_test_accuracy"]
    lines = [
        f"| method | start | Δt | n | {' | '.join(head.values())} |",
        "|---|---|---|---:|" + "---:|" * len(head),
    ]
    stars = by_design(cells)
    for design, row in table.items():
        star = "*" if any(cell.converged is False for cell in stars[design]) else ""
        values = [_shown(name, row[name], power) for name in head]
        values[list(head).index("epochs")] += star
        lines.append(
            f"| {label(design.method)} | {share(design.start)} | {_delta(design)} |"
            f" {len(stars[design])} | {' | '.join(values)} |"
        )
    unit = f" in {_UNITS[power]}" if power else ""
    lines += [
        "",
        "Mean ± sample standard deviation over seeds. Accuracies of validation images and, where it"
        f" says so, of test images. Multiply-adds{unit}: of training (three forward passes an image"
        " pass) and of what growth does besides; evaluation is in neither times nor multiply-adds.",
    ]
    if any(cell.converged is False for cell in cells):
        lines.append("\\* Not converged when the planned epochs were over, so trained on.")
    return lines


def differences_table(cells: Sequence[Cell]) -> list[str]:
    """Return the lines of the comparisons within one setting."""
    found = differences(cells)
    if not found:
        return ["There is nothing to compare yet."]
    lines = [
        "| | start | Δt | n | validation, end of growth | validation, end, at equal image passes |"
        " test, end | time, share | multiply-adds, share |",
        "|---|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for d in found:
        what = f"{label(d.one.method)} less {label(d.other.method)}"
        cost = [numbers.ABSENT if math.isnan(v) else f"{v:.2f}" for v in _shares(d)]
        cells_of_row = [_points(d.growth), _points(d.equal), _points(d.test), *cost]
        seeds = f"{d.seeds[0]}, {d.seeds[1]}"
        lines.append(
            f"| {what} | {share(d.one.start)} | {_delta(d.one)} | {seeds} |"
            f" {' | '.join(cells_of_row)} |"
        )
    return [*lines, "", *_caution(found)]


def _shares(difference: Difference) -> tuple[float, float]:
    return difference.seconds, difference.multiply_adds


def _caution(found: Sequence[Difference]) -> list[str]:
    """Say how far the intervals carry."""
    intervals = [
        pair
        for d in found
        for pair in (d.growth, d.equal, d.test)
        if pair is not None and pair[1] is not None
    ]
    lines = [
        "Points of accuracy, ± half of the 95 % interval (Welch's t, seeds not paired);"
        " **bold**: the interval leaves zero. At equal image passes: less what the other had after"
        " as many, by its log."
    ]
    fewest = min(min(d.seeds) for d in found)
    if fewest == 1:
        lines.append("Where a design has a single seed there is no interval, and no conclusion.")
    if any(2 in d.seeds for d in found):
        lines.append("n = 2 says little: such an interval is 4 to 13 standard errors wide.")
    if len(intervals) > 1:
        lines.append(
            f"Of {len(intervals)} such intervals about one in twenty leaves zero by chance."
        )
    return lines


def share(start: float) -> str:
    """Return a start as a fraction: 1/4, 1."""
    if math.isnan(start):
        return numbers.ABSENT
    fraction = Fraction(start).limit_denominator(1024)
    return str(fraction)


def _delta(design: Design) -> str:
    return numbers.ABSENT if design.method == SCRATCH else f"{design.epochs_between:g}"


def _points(pair: tuple[float, float | None] | None) -> str:
    if pair is None:
        return numbers.ABSENT
    value, half = pair
    if half is None:
        return f"{value:+.2f}"
    text = f"{value:+.2f} ± {half:.2f}"
    return f"**{text}**" if abs(value) > half else text


def _shown(name: str, figure: Figure | None, power: int) -> str:
    if figure is None:
        return numbers.ABSENT
    form = _form(name, power)
    if figure.sd is None or (not figure.sd and not name.endswith("accuracy")):
        return form(figure.mean)
    return f"{form(figure.mean)} ± {form(figure.sd)}"


def _form(name: str, power: int) -> Callable[[float], str]:
    if name.endswith("accuracy"):
        return lambda value: f"{value:.2f}"
    if name.endswith("seconds"):
        return numbers.duration
    if name in ("parameters", "epochs"):
        return numbers.count
    return lambda value: f"{value / 10**power:,.2f}"


def settings_of(cells: Sequence[Cell]) -> Mapping[tuple[str, str], list[Cell]]:
    """Return the cells of each pair of data and network."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.design.setting, []).append(cell)
    return groups
