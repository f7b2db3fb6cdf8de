"""Table and pictures of `benchmarks.schedules`: accuracy against costs of training and of use."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from benchmarks.methods_report import Interval, interval
from benchmarks.schedules_plans import PLANS
from tinygrow.errors import TinygrowError
from tinygrow.files import write_bytes, write_json, write_text
from tinygrow.report.history import read_json
from tinygrow.report.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    house_style,
    new_figure,
    to_png,
    to_svg,
)

REFERENCE = "full-30"
"""To which the others are compared, seed by seed."""
_COLOURS = {"shorter": INK, "uniform": MUTED, "grown": BLUE, "budget": ORANGE}
_NAMES = {
    "shorter": "full width from scratch, fewer epochs",
    "uniform": "uniform width from scratch, 30 epochs",
    "grown": "grown to the full width",
    "budget": "grown until a budget",
}
_OTHER_NEURONS = ("random", "net2wider")

Record = Mapping[str, Any]
Runs = Mapping[str, Sequence[Record]]


def collect(folder: Path) -> dict[str, list[Record]]:
    """Return the finished runs by plan, in the order of `PLANS`, each in order of seeds.

    Raises:
        TinygrowError: there is none.
    """
    records = [read_json(path) for path in sorted(folder.glob("*-s*.json"))]
    if not records:
        raise TinygrowError(f"{folder} holds no finished run")
    found = {
        name: sorted((r for r in records if r["plan"] == name), key=lambda r: r["seed"])
        for name in PLANS
    }
    return {name: runs for name, runs in found.items() if runs}


def differences(runs: Runs, plan: str, key: str) -> list[float]:
    """Return the plan's value less the reference's, for the seeds that both have."""
    there = {r["seed"]: r[key] for r in runs.get(REFERENCE, ())}
    return [r[key] - there[r["seed"]] for r in runs[plan] if r["seed"] in there]


def markdown(runs: Runs) -> str:
    """Return one table of recipes and one of plans."""
    recipes = [name for name in runs if PLANS[name].group == "recipe"]
    plans = [name for name in runs if PLANS[name].group != "recipe"]
    lines: list[str] = []
    if recipes:
        lines += ["| recipe, full width, 15 epochs | n | validation (%) |", "|---|---:|---:|"]
        lines += [
            f"| {PLANS[name].meaning} | {len(runs[name])} |"
            f" {_shown(interval([r['validation_accuracy'] for r in runs[name]]))} |"
            for name in recipes
        ]
        lines.append("")
    if plans:
        head = (
            "plan",
            "n",
            "image passes (epochs)",
            "training, 1e12 multiply-adds",
            f"share of `{REFERENCE}`",
            "processor seconds",
            "parameters",
            "ms a call, batch 1",
            "ms a call, batch 64",
            "validation (%)",
            "test (%)",
            f"validation less `{REFERENCE}`'s, same seeds",
        )
        lines += [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
        lines += [f"| {' | '.join(_row(runs, name))} |" for name in plans]
        lines += ["", "Mean ± half of the 95 % interval by t over seeds."]
    return "\n".join(lines) + "\n"


def _row(runs: Runs, name: str) -> list[str]:
    records = runs[name]
    mean = _mean_of(records)
    spent = mean(lambda r: r["total_spent"])
    share = ""
    if REFERENCE in runs:
        share = f"{spent / _mean_of(runs[REFERENCE])(lambda r: r['total_spent']):.2f}"
    beside = differences(runs, name, "validation_accuracy") if name != REFERENCE else []
    return [
        f"`{name}`: {PLANS[name].meaning}",
        str(len(records)),
        f"{mean(lambda r: r['epochs']):.1f}",
        f"{spent / 1e12:.1f}",
        share,
        f"{mean(lambda r: r['seconds']):,.0f}",
        f"{mean(lambda r: r['parameters']):,.0f}",
        f"{mean(lambda r: r['latency_ms']['1']):.2f}",
        f"{mean(lambda r: r['latency_ms']['64']):.1f}",
        _shown(interval([r["validation_accuracy"] for r in records])),
        _shown(interval([r["test_accuracy"] for r in records])),
        _shown(interval(beside), signed=True) if beside else "",
    ]


def _mean_of(records: Sequence[Record]) -> Callable[[Callable[[Record], float]], float]:
    return lambda value: statistics.fmean(value(r) for r in records)


def draw(runs: Runs, panels: Mapping[str, tuple[str, Callable[[Record], float]]], line: str) -> Any:
    """Draw test accuracy against costs; the line joins the networks of the group to beat.

    Args:
        runs: by plan.
        panels: key -> label of the axis, and what of a run is on it.
        line: the group whose means are joined; the reference belongs to it.
    """
    figure = new_figure(11.5, 5.2)
    axes = figure.subplots(1, len(panels), sharey=True)
    for ax, (title, (label, value)) in zip(axes, panels.items(), strict=True):
        for name, records in runs.items():
            _draw_plan(ax, name, records, value)
        joined = sorted(
            (_mean_of(records)(value), _mean_of(records)(lambda r: r["test_accuracy"]))
            for name, records in runs.items()
            if PLANS[name].group == line or name == REFERENCE
        )
        ax.plot(*zip(*joined, strict=True), color=_COLOURS[line], linewidth=1, zorder=1)
        ax.set_title(title)
        ax.set_xlabel(label)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("{x:g}")
        ax.tick_params(axis="x", which="minor", labelsize=7)
    axes[0].set_ylabel("test accuracy (%)")
    groups = dict.fromkeys(PLANS[name].group for name in runs)
    for group in groups:
        axes[0].plot([], [], "o", color=_COLOURS[group], label=_NAMES[group])
    if any(name.startswith(_OTHER_NEURONS) for name in runs):
        axes[0].plot([], [], "s", color=GREEN, label="grown by random neurons or Net2Wider")
    axes[0].legend(loc="lower right")
    return figure


def _draw_plan(
    ax: Axes, name: str, records: Sequence[Record], value: Callable[[Record], float]
) -> None:
    other = name.startswith(_OTHER_NEURONS)
    colour = GREEN if other else _COLOURS[PLANS[name].group]
    x, y = [value(r) for r in records], [r["test_accuracy"] for r in records]
    cell: Interval = interval(y)
    ax.plot(x, y, "s" if other else "o", color=colour, markersize=3, alpha=0.5)
    place = statistics.fmean(x)
    ax.plot([place], [cell.mean], "s" if other else "o", color=colour, markersize=8)
    ax.annotate(
        name, (place, cell.mean), textcoords="offset points", xytext=(6, 5), fontsize=7, color=INK
    )


def write_report(folder: Path, out: Path) -> str:
    """Write schedules.md, schedules.json and two pictures; return the tables.

    Args:
        folder: of the runs.
        out: where to.
    """
    runs = collect(folder)
    text = markdown(runs)
    write_text(out / "schedules.md", text)
    write_json(
        out / "schedules.json",
        {
            "setup": read_json(folder / "setup.json"),
            "runs": [r for records in runs.values() for r in records],
        },
    )
    plans = {name: records for name, records in runs.items() if PLANS[name].group != "recipe"}
    if plans:
        with house_style():
            training = {
                "Cost of training": (
                    "multiply-adds of training and growth, 1e12",
                    lambda r: r["total_spent"] / 1e12,
                ),
                "Time of training": ("processor seconds", lambda r: r["seconds"]),
            }
            use = {
                "Size": ("parameters, thousands", lambda r: r["parameters"] / 1e3),
                "Time of use": (
                    "ONNX Runtime, milliseconds a call of 64 images",
                    lambda r: r["latency_ms"]["64"],
                ),
            }
            for stem, panels, line in (("training", training, "shorter"), ("use", use, "uniform")):
                figure = draw(plans, panels, line)
                title = f"Accuracy against the cost of {stem}"
                write_text(out / f"{stem}.svg", to_svg(figure, stem, title))
                write_bytes(out / f"{stem}.png", to_png(figure))
    return text


def _shown(cell: Interval, signed: bool = False) -> str:
    mean = f"{cell.mean:+.2f}" if signed else f"{cell.mean:.2f}"
    return mean if cell.half is None else f"{mean} ± {cell.half:.2f}"
