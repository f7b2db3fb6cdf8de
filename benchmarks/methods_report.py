"""Table and picture of `benchmarks.methods`: accuracy against parameters, with intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator
from scipy import stats

from tinygrow.errors import TinygrowError
from tinygrow.files import write_bytes, write_json, write_text
from tinygrow.report import numbers
from tinygrow.report.history import read_json
from tinygrow.report.style import INK, MUTED, house_style, new_figure, ramp, to_png, to_svg
from tinygrow.report.training_curves import short_count

LABELS = {
    "tiny": "TINY",
    "tiny-greedy": "TINY, greedy",
    "tiny-refit": "TINY, fan-out fitted",
    "tiny-raw": "TINY, no projection",
    "whitened": "TINY, whitened",
    "gradmax": "GradMax",
    "firefly": "Firefly",
    "net2wider": "Net2Wider",
    "random": "random, searched",
    "random-zero": "random, zero fan-out",
    "random-pairs": "random pairs",
    "random-variance": "random, variance kept",
    "never": "never grown",
    "scratch": "full width from scratch",
}
REFERENCE = "tiny"
"""To which the others are compared, seed by seed."""

_MARKERS = "os^Dv<>pPX*hd"
FEWEST_SEEDS = 4
"""For intervals in the picture of the curves."""
_EVERY = (3, 4)
"""First point with a marker and a bar, and the steps to the next: the ends of sweeps of four."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Interval:
    """Mean of n values and half of its 95 % interval by t; None for a single value."""

    mean: float
    half: float | None
    n: int


def interval(values: Sequence[float]) -> Interval:
    """Return mean and interval of independent values."""
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Interval(mean, None, n)
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, half, n)


def collect(folder: Path) -> dict[str, list[Record]]:
    """Return the finished runs by variant, the known variants first, each in order of seeds.

    Raises:
        TinygrowError: there is none.
    """
    records = [read_json(path) for path in sorted(folder.glob("*-s*.json"))]
    if not records:
        raise TinygrowError(f"{folder} holds no finished run")
    found = {r["variant"] for r in records}
    order = [v for v in LABELS if v in found] + sorted(found - set(LABELS))
    return {
        v: sorted((r for r in records if r["variant"] == v), key=lambda r: r["seed"]) for v in order
    }


def label(variant: str) -> str:
    """Return what a variant is called in the table and in the picture."""
    return LABELS.get(variant, variant)


def differences(runs: Mapping[str, Sequence[Record]], variant: str, key: str) -> list[float]:
    """Return the variant's value less the reference's, for the seeds that both have."""
    there = {r["seed"]: r[key] for r in runs.get(REFERENCE, ())}
    return [r[key] - there[r["seed"]] for r in runs[variant] if r["seed"] in there]


def markdown(runs: Mapping[str, Sequence[Record]], setup: Record, commands: Sequence[str]) -> str:
    """Return the table with what a reader needs to judge it."""
    head = (
        "variant",
        "n",
        "parameters",
        "validation at the end of growth (%)",
        "test at the end (%)",
        f"test less {label(REFERENCE)}'s, same seeds",
        "fall of the loss at insertion (%)",
        "images of statistics",
        "processor seconds",
    )
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for variant, records in runs.items():
        values = {key: [r[key] for r in records] for key in ("growth_accuracy", "test_accuracy")}
        beside = differences(runs, variant, "test_accuracy") if variant != REFERENCE else []
        falls = [statistics.fmean(r["falls"]) for r in records if r["falls"]]
        seconds = statistics.fmean(r["seconds"] for r in records)
        cells = [
            label(variant),
            str(len(records)),
            _range([r["parameters"] for r in records]),
            _shown(interval(values["growth_accuracy"])),
            _shown(interval(values["test_accuracy"])),
            _shown(interval(beside), signed=True) if beside else "",
            _shown(interval(falls), signed=True) if falls else "",
            _range([r["statistics_images"] for r in records]),
            f"{seconds:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    growth, network = setup["growth"], setup["network"]
    machines = sorted({_machine(r["where"]) for records in runs.values() for r in records})
    lines += [
        "",
        "Mean ± half of the 95 % interval by t over seeds (for differences: of the differences).",
        "",
        f"Base width {network['base_width']}, blocks {network['blocks']}, from"
        f" {network['start']:g} of the middle widths in {growth['extensions']} sweeps,"
        f" {growth['epochs_between']:g} epochs after each extension, then"
        f" {setup['further_epochs']} epochs with the learning rate falling to zero;"
        f" {setup['train_images']:,} training,"
        f" {setup['validation_images']:,} validation and {setup['test_images']:,} test images,"
        f" batches of {growth['training']['batch_size']}. Image passes in training:"
        f" {_range([r['image_passes'] for records in runs.values() for r in records])}.",
        "",
        *(f"    {command}" for command in commands),
        "",
        f"Measured on: {'; '.join(machines)}.",
        "",
    ]
    return "\n".join(lines)


def draw(runs: Mapping[str, Sequence[Record]]) -> tuple[str, bytes]:
    """Draw validation accuracy over parameters in growth, beside the test accuracy at the end.

    Returns:
        The picture as SVG and as PNG.
    """
    with house_style():
        figure = new_figure(11.5, 6.0)
        left, right = figure.subplots(1, 2, width_ratios=(6, 5))
        points = {variant: mean_points(records) for variant, records in runs.items()}
        grown = [v for v in runs if points[v][0][0] != points[v][-1][0]]
        for i, (variant, records) in enumerate(runs.items()):
            color = ramp(grown.index(variant), len(grown)) if variant in grown else INK
            marker = _MARKERS[i % len(_MARKERS)]
            shown = points[variant] if variant in grown else points[variant][-1:]
            _draw_curve(left, shown, color, marker, label(variant), 1 + 0.006 * (i - len(runs) / 2))
            _draw_test(right, -i, [r["test_accuracy"] for r in records], color, marker)
        means = [cell.mean for curve in points.values() for _, cell in curve]
        margin = 0.15 * (max(means) - min(means)) + 0.5
        left.set_ylim(min(means) - margin, max(means) + margin)
        left.set_xscale("log")
        sizes = [size for curve in points.values() for size, _ in curve]
        left.set_xticks(np.geomspace(min(sizes), max(sizes), 7))
        left.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short_count(v)))
        left.xaxis.set_minor_locator(NullLocator())
        left.set_title("Validation accuracy (%) during growth")
        left.set_xlabel(f"parameters; mean over seeds, 95 % interval from {FEWEST_SEEDS} seeds on")
        left.legend(loc="lower right", ncols=2, fontsize=7.5)
        means = [statistics.fmean(r["test_accuracy"] for r in records) for records in runs.values()]
        margin = 0.5 * (max(means) - min(means)) + 0.5
        right.set_xlim(min(means) - margin, max(means) + margin)
        right.set_title("Test accuracy (%) after equal further training")
        right.set_xlabel("large: mean; small: single seeds; bar: 95 % interval")
        names = [f"{label(v)} (n = {len(records)})" for v, records in runs.items()]
        right.set_yticks([-i for i in range(len(runs))], names, color=INK)
        right.tick_params(axis="y", length=0)
        right.grid(axis="y", visible=False)
        title = "Accuracy against parameters, for all methods of growth"
        return to_svg(figure, "methods", title), to_png(figure)


def mean_points(records: Sequence[Record]) -> list[tuple[float, Interval]]:
    """Return mean parameters and validation accuracy after each training in growth.

    Where seeds have unequally many, as many as all have.
    """
    curves = [[p for p in r["curve"] if p["images_seen"]] for r in records]
    return [
        (
            statistics.fmean(p["parameters"] for p in points),
            interval([p["validation_accuracy"] for p in points]),
        )
        for points in zip(*curves, strict=False)
    ]


def _draw_curve(
    ax: Axes,
    points: Sequence[tuple[float, Interval]],
    color: str,
    marker: str,
    name: str,
    shift: float,
) -> None:
    x = [size * shift for size, _ in points]  # so that bars do not hide each other
    # Of two or three seeds the interval by t would cross the whole picture; the table has it.
    halves = [(cell.half or 0.0) if cell.n >= FEWEST_SEEDS else 0.0 for _, cell in points]
    if len(points) == 1:  # a network that does not grow
        ax.errorbar(x, [points[0][1].mean], halves, fmt=marker, color=color, label=name)
        return
    ax.errorbar(
        x,
        [cell.mean for _, cell in points],
        yerr=halves,
        color=color,
        marker=marker,
        markevery=_EVERY,
        errorevery=_EVERY,
        linewidth=1.2,
        elinewidth=0.5,
        label=name,
    )


def _draw_test(
    ax: Axes, place: float, accuracies: Sequence[float], color: str, marker: str
) -> None:
    cell = interval(accuracies)
    if cell.half is not None:
        ends = [cell.mean - cell.half, cell.mean + cell.half]
        ax.plot(ends, [place, place], color=color, linewidth=5, alpha=0.3)
    ax.plot(accuracies, [place] * cell.n, marker, color=MUTED, markersize=3)
    ax.plot([cell.mean], [place], marker, color=color, markersize=8)


def write_report(folder: Path, out: Path, commands: Sequence[str]) -> str:
    """Write methods.md, methods.json and the picture; return the table.

    Args:
        folder: of the runs.
        out: where to.
        commands: that made them.
    """
    runs, setup = collect(folder), read_json(folder / "setup.json")
    text = markdown(runs, setup, commands)
    svg, png = draw(runs)
    write_text(out / "methods.md", text)
    write_text(out / "methods.svg", svg)
    write_bytes(out / "methods.png", png)
    write_json(
        out / "methods.json",
        {"setup": setup, "runs": [r for records in runs.values() for r in records]},
    )
    return text


def _shown(cell: Interval, signed: bool = False) -> str:
    mean = f"{cell.mean:+.2f}" if signed else f"{cell.mean:.2f}"
    return mean if cell.half is None else f"{mean} ± {cell.half:.2f}"


def _range(values: Sequence[float]) -> str:
    """Return one number, or the smallest and the largest."""
    ends = dict.fromkeys((min(values), max(values)))
    return " to ".join(numbers.count(value) for value in ends)


def _machine(where: Record) -> str:
    return (
        f"{where['machine']}, {where['threads']} threads, Python {where['python']},"
        f" torch {where['torch']}, tinygrow {where['tinygrow']}"
    )
