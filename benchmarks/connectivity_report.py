"""Table and picture of the runs of `benchmarks.connectivity`."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrow.connectivity.dag import Dag
from tinygrow.errors import TinygrowError
from tinygrow.files import write_bytes, write_text
from tinygrow.report.history import read_json
from tinygrow.report.style import (
    BLUE,
    GREEN,
    ORANGE,
    house_style,
    new_figure,
    to_png,
    to_svg,
)

NAMES = {"2_02_002": "#1 sequential", "1_01_222": "#2 parallel", "2_21_112": "#3 mixed"}
_COLORS = dict(zip(NAMES, (BLUE, ORANGE, GREEN), strict=True))
_DIVERGED = math.log(10)
"""A final loss of a run that ended with numbers that are not finite: that of guessing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The runs of one DAG at one learning rate.

    Attributes:
        losses: final training losses, one a seed; a run that diverged has that of guessing.
        train: final training accuracies in percent.
        validation: likewise, of held-out images.
        curves: training loss after each epoch, a list a seed.
        diverged: how many runs did.
    """

    losses: list[float]
    train: list[float]
    validation: list[float]
    curves: list[list[float]]
    diverged: int


Cells = dict[tuple[str, float], Cell]


def read_runs(path: Path) -> list[dict[str, Any]]:
    """Return the finished runs of a file of lines; none where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cells_of(runs: Sequence[dict[str, Any]]) -> Cells:
    """Return the runs by DAG and learning rate."""
    cells: Cells = {}
    for key in dict.fromkeys((run["code"], run["learning_rate"]) for run in runs):
        own = [r["curve"] for r in runs if (r["code"], r["learning_rate"]) == key]
        losses = [[_loss(look) for look in curve] for curve in own]
        cells[key] = Cell(
            losses=[curve[-1] for curve in losses],
            train=[curve[-1]["train_accuracy"] for curve in own],
            validation=[curve[-1]["validation_accuracy"] for curve in own],
            curves=losses,
            diverged=sum(curve[-1]["loss"] is None for curve in own),
        )
    return cells


def best_rate(cells: Cells, code: str) -> float:
    """Return the learning rate of the least mean final training loss."""
    rates = [rate for own, rate in cells if own == code]
    return min(rates, key=lambda rate: statistics.mean(cells[code, rate].losses))


def write_report(folders: Sequence[Path], target: Path) -> None:
    """Write table.md, runs.csv, dags.svg and dags.png of the runs of each folder.

    Raises:
        TinygrowError: a folder has no runs.
    """
    found: list[tuple[str, Cells]] = []
    lines: list[str] = []
    for folder in folders:
        runs = read_runs(folder / "runs.jsonl")
        if not runs:
            raise TinygrowError(f"{folder} holds no runs; train some first")
        setup = read_json(folder / "setup.json")
        cells = cells_of(runs)
        name = f"{Path(setup['data']).stem}, {setup['train_images']:,} images"
        found.append((name, cells))
        lines += [f"### {name}, {setup['epochs']} epochs, width {setup['width']}", ""]
        lines += _table(cells)
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / "table.md", "\n".join(lines))
    write_text(target / "runs.csv", _csv(found))
    with house_style():
        figure = _figure(found)
        write_text(target / "dags.svg", to_svg(figure, "dags", "Three DAGs at equal parameters"))
        write_bytes(target / "dags.png", to_png(figure))


def _table(cells: Cells) -> list[str]:
    rates = sorted({rate for _, rate in cells})
    best = {code: best_rate(cells, code) for code in NAMES}
    lines = [f"| learning rate | {' | '.join(NAMES.values())} |", "|---|---:|---:|---:|"]
    for rate in rates:
        told = []
        for code in NAMES:
            text = _spread(cells[code, rate].losses, 4)
            if cells[code, rate].diverged:
                text = f"{cells[code, rate].diverged} of {len(cells[code, rate].losses)} diverged"
            told.append(f"**{text}**" if best[code] == rate else text)
        lines.append(f"| {rate:g} | {' | '.join(told)} |")
    lines += ["", "At the smallest and at each one's best rate:", ""]
    lines += [
        "| | bound at c = 0 | rate | n | training loss | training accuracy, % | validation, % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for pick in ("smallest", "best"):
        for code, name in NAMES.items():
            rate = rates[0] if pick == "smallest" else best[code]
            cell = cells[code, rate]
            bound = Dag.from_code(code).paths().bound()
            lines.append(
                f"| {name}, {pick} | {bound:.3f} | {rate:g} | {len(cell.losses)} |"
                f" {_spread(cell.losses, 4)} | {_spread(cell.train, 2)} |"
                f" {_spread(cell.validation, 2)} |"
            )
    return [*lines, ""]


def _figure(found: Sequence[tuple[str, Cells]]) -> Any:
    figure = new_figure(9.0, 3.2 * len(found))
    grid = figure.subplots(len(found), 2, squeeze=False)
    for (left, right), (name, cells) in zip(grid, found, strict=True):
        smallest = min(rate for _, rate in cells)
        for code, label in NAMES.items():
            color = _COLORS[code]
            curves = cells[code, smallest].curves
            means = [statistics.mean(column) for column in zip(*curves, strict=True)]
            low = [min(column) for column in zip(*curves, strict=True)]
            high = [max(column) for column in zip(*curves, strict=True)]
            left.plot(means, color=color, label=label)
            left.fill_between(range(len(means)), low, high, color=color, alpha=0.15, linewidth=0)
            rates = sorted(rate for own, rate in cells if own == code)
            kept = [rate for rate in rates if not cells[code, rate].diverged]
            right.errorbar(
                kept,
                [statistics.mean(cells[code, rate].losses) for rate in kept],
                _reach([cells[code, rate].losses for rate in kept]),
                color=color,
                marker="o",
                capsize=2,
                label=label,
            )
        left.set_title(f"{name}: learning rate {smallest:g}")
        left.set_xlabel("epoch")
        left.set_ylabel("training loss")
        left.legend()
        right.set_title("after the last epoch, by learning rate")
        right.set_xscale("log")
        right.set_yscale("log")
        for axis in (right.xaxis, right.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(lambda value, _: "")
        right.set_xlabel("learning rate (points are left out where a run diverged)")
    return figure


def _reach(losses: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return how far the smallest and the largest of each lie from the mean."""
    means = [statistics.mean(values) for values in losses]
    return [
        [mean - min(values) for mean, values in zip(means, losses, strict=True)],
        [max(values) - mean for mean, values in zip(means, losses, strict=True)],
    ]


def _csv(found: Sequence[tuple[str, Cells]]) -> str:
    lines = ["data,dag,learning_rate,seed,train_loss,train_accuracy,validation_accuracy"]
    for name, cells in found:
        for (code, rate), cell in cells.items():
            columns = zip(cell.losses, cell.train, cell.validation, strict=True)
            for seed, (loss, train, validation) in enumerate(columns):
                lines.append(
                    f"{name.split(',')[0]},{code},{rate:g},{seed},{loss},{train},{validation}"
                )
    return "\n".join(lines) + "\n"


def _loss(look: dict[str, Any]) -> float:
    return _DIVERGED if look["loss"] is None else float(look["loss"])


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f} ± {_deviation(values):.{digits}f}"
