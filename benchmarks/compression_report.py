"""Tables and picture of `benchmarks.compression`: what is left of a network, and how good it is."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygrow.errors import TinygrowError
from tinygrow.files import write_bytes, write_json, write_text
from tinygrow.report.history import read_json
from tinygrow.report.style import INK, house_style, new_figure, ramp, to_png, to_svg

Record = Mapping[str, Any]
_MARKERS = "osD^"


def collect(folder: Path) -> dict[str, tuple[Record, list[Record]]]:
    """Return setup and cells of each task, in order of strength and seed.

    Raises:
        TinygrowError: there is no cell.
    """
    found = {}
    for path in sorted([folder / "setup.json", *folder.glob("*/setup.json")]):
        if not path.is_file():
            continue
        cells = [read_json(cell) for cell in path.parent.glob("*-s*.json")]
        setup = read_json(path)
        if cells:
            ordered = sorted(cells, key=lambda c: (c["strength"], c["seed"]))
            found[str(setup["task"])] = (setup, ordered)
    if not found:
        raise TinygrowError(f"{folder} holds no finished cell")
    return found


def strengths(cells: Sequence[Record]) -> dict[float, list[Record]]:
    """Return the cells of each strength."""
    result: dict[float, list[Record]] = {}
    for cell in cells:
        result.setdefault(cell["strength"], []).append(cell)
    return result


def markdown(setup: Record, cells: Sequence[Record]) -> str:
    """Return the table of a task."""
    head = (
        setup["penalty"],
        "n",
        "validation (%)",
        "test (%)",
        "parameters before",
        "after",
        "removed (%)",
        "multiply-adds removed (%)",
        "units proved",
        "of",
        "units gone",
        "test images answered otherwise",
        "seconds of compression",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for strength, group in strengths(cells).items():
        row = (
            f"{strength:g}",
            str(len(group)),
            _spread(c["validation_accuracy"] for c in group),
            _spread(c["test_accuracy"] for c in group),
            f"{group[0]['parameters']:,}",
            _spread((c["parameters_after"] for c in group), ",.0f"),
            _spread((_saved(c, "parameters") for c in group), ".1f"),
            _spread((_saved(c, "multiply_adds") for c in group), ".1f"),
            _spread((c["proved"] for c in group), ".0f"),
            str(group[0]["units"]),
            _spread((sum(c["actions"].values()) for c in group), ".0f"),
            str(sum(c["different_answers"] for c in group)),
            _spread((c["compression_seconds"] for c in group), ".1f"),
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def draw(tasks: Mapping[str, tuple[Record, Sequence[Record]]]) -> tuple[str, bytes]:
    """Draw test accuracy over the share of parameters that is left; return SVG and PNG."""
    with house_style():
        figure = new_figure(4.2 * len(tasks), 4.2)
        for axes, (name, (setup, cells)) in zip(
            figure.subplots(1, len(tasks), squeeze=False)[0], tasks.items(), strict=True
        ):
            groups = strengths(cells)
            means = []
            for i, (strength, group) in enumerate(groups.items()):
                left = [100 - _saved(c, "parameters") for c in group]
                right = [c["test_accuracy"] for c in group]
                color, marker = ramp(i, len(groups)), _MARKERS[i % len(_MARKERS)]
                axes.plot(left, right, marker, color=color, ms=5, label=f"{strength:g}")
                means.append((statistics.fmean(left), statistics.fmean(right)))
            axes.plot(*zip(*means, strict=True), color=INK, lw=0.8, zorder=0)
            axes.set_title(f"{name}: test accuracy (%)")
            axes.set_xlabel("parameters left (%), the same function")
            axes.legend(title=setup["penalty"], fontsize=7.5, title_fontsize=7.5)
        title = "Accuracy against what exact compression leaves"
        return to_svg(figure, "compression", title), to_png(figure)


def write_report(folder: Path, out: Path) -> str:
    """Write the picture and all cells in numbers; return the tables."""
    tasks = collect(folder)
    out.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, (setup, cells) in tasks.items():
        parts.append(
            f"**{name}**: {setup['train_images']:,} training images, {setup['epochs']} epochs,"
            f" {setup['test_images']:,} test images.\n\n{markdown(setup, cells)}"
        )
    text = "\n".join(parts)
    svg, png = draw(tasks)
    write_text(out / "compression.svg", svg)
    write_bytes(out / "compression.png", png)
    cells = {name: {"setup": setup, "cells": list(cells)} for name, (setup, cells) in tasks.items()}
    write_json(out / "compression.json", cells)
    return text


def _saved(cell: Record, what: str) -> float:
    """Return the percentage of parameters or multiply-adds that is gone."""
    return float(100.0 * (1 - cell[f"{what}_after"] / cell[what]))


def _spread(values: Any, form: str = ".2f") -> str:
    """Return the one value, or the smallest and the largest."""
    found = sorted(values)
    low, high = format(found[0], form), format(found[-1], form)
    return low if low == high else f"{low} to {high}"
