"""Compare finished models row by row: `python -m benchmarks.rows PIPELINE_FOLDER OUT_FOLDER`.

The pipeline folder holds models named `<row>-s<seed>`, such as `tiny-s0`, made by `dvc repro`. What
is missing is named, never made up.
"""

import argparse
import math
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.rows_picture import draw_rows
from benchmarks.runs import LABELS, Run, collect
from pipeline import paths
from tinygrow.errors import TinygrowError
from tinygrow.files import write_bytes, write_json, write_text
from tinygrow.report import numbers
from tinygrow.report.history import read_json

COLUMNS = {
    "test_accuracy": "test accuracy (%)",
    "growth_accuracy": "validation accuracy at the end of growth (%)",
    "final_accuracy": "validation accuracy at the end (%)",
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "image_passes": "image passes in training",
    "statistics_images": "images read for statistics",
    "seconds": "seconds",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """Mean and sample standard deviation of n seeds; no deviation where n is 1."""

    mean: float
    sd: float | None
    n: int


def summarise(runs: Sequence[Run]) -> dict[str, dict[str, Cell]]:
    """Return row -> column -> mean and deviation, the known rows first."""
    order = [*LABELS, *sorted({run.row for run in runs} - set(LABELS))]
    table: dict[str, dict[str, Cell]] = {}
    for row in order:
        chosen = [run for run in runs if run.row == row]
        if chosen:
            table[row] = {c: _cell([getattr(r, c) for r in chosen]) for c in COLUMNS}
    return table


def _cell(values: Sequence[float]) -> Cell:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Cell(statistics.fmean(values), deviation, len(values))


def verdict(table: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Say which row wins, how sure that is, and whether the rows cost the same."""
    ranked = sorted(table, key=lambda row: -table[row]["test_accuracy"].mean)
    best = table[ranked[0]]["test_accuracy"]
    lines = [f"Highest mean test accuracy: {label(ranked[0])}, {_number('test_accuracy', best)} %."]
    for row in ranked[1:]:
        cell = table[row]["test_accuracy"]
        gap = best.mean - cell.mean
        half = half_width(best, cell)
        if half is None:
            note = "no interval, for a row has a single seed"
        elif gap <= half:
            note = f"± {half:.2f} (95 % interval, Welch): so neither wins"
        else:
            note = f"± {half:.2f} (95 % interval, Welch): more than seeds explain"
        lines.append(f"{label(row)} lies {gap:.2f} points behind; {note}.")
    passes = [cells["image_passes"].mean for cells in table.values()]
    if max(passes) > 1.02 * min(passes):
        lines.append(
            f"The rows did NOT see equally many images in training: {min(passes):,.0f} to"
            f" {max(passes):,.0f} passes."
        )
    return lines


def half_width(a: Cell, b: Cell) -> float | None:
    """Return half the 95 % interval of a difference of means (Welch's t), None for one seed."""
    if a.sd is None or b.sd is None:
        return None
    parts = [a.sd**2 / a.n, b.sd**2 / b.n]
    if sum(parts) == 0:
        return 0.0
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (a.n - 1) + parts[1] ** 2 / (b.n - 1))
    return float(stats.t.ppf(0.975, freedom)) * math.sqrt(sum(parts))


def label(row: str) -> str:
    """Return what a row is called in tables and pictures."""
    return LABELS.get(row, row)


def markdown(
    runs: Sequence[Run], missing: Sequence[str], command: str, machines: Sequence[str]
) -> str:
    """Return the table with everything that a reader needs to judge it."""
    table = summarise(runs)
    lines = [f"| row | seeds | {' | '.join(COLUMNS.values())} |"]
    lines.append("|---|" + "---:|" * (len(COLUMNS) + 1))
    for row, cells in table.items():
        values = [_number(column, cell) for column, cell in cells.items()]
        lines.append(f"| {label(row)} | {cells['test_accuracy'].n} | {' | '.join(values)} |")
    for row in LABELS:
        if row not in table:
            lines.append(f"| {label(row)} | 0 | {' | '.join(['missing'] * len(COLUMNS))} |")
    lines += [
        "",
        "Mean ± sample standard deviation over seeds; seconds are growth and fine-tuning.",
    ]
    lines += ["", *(f"- {line}" for line in verdict(table))]
    if missing:
        lines += ["", "Missing:", "", *(f"- {line}" for line in missing)]
    failed = [run.model for run in runs if not run.validated]
    if failed:
        lines += ["", f"Did not pass the gate: {', '.join(failed)}."]
    lines += ["", "![validation accuracy over image passes](rows.svg)", ""]
    lines += [f"Models: {', '.join(run.model for run in runs)}.", ""]
    lines += [f"Table made by `{command}`, models by `dvc repro` in that folder."]
    lines += [f"Machine: {'; '.join(machines)}. {_versions()}.", ""]
    return "\n".join(lines)


def _number(column: str, cell: Cell) -> str:
    """Return a cell; what is the same for every seed carries no deviation."""
    if column.endswith("accuracy"):
        return f"{cell.mean:.2f}" if cell.sd is None else f"{cell.mean:.2f} ± {cell.sd:.2f}"
    if column == "seconds":
        return f"{cell.mean:,.1f}" if cell.sd is None else f"{cell.mean:,.1f} ± {cell.sd:,.1f}"
    if not cell.sd:
        return numbers.count(cell.mean)
    return f"{numbers.count(cell.mean)} ± {numbers.count(cell.sd)}"


def _machines(folder: Path, runs: Sequence[Run]) -> list[str]:
    """Return the machines that the gate ran on, as the sidecars tell."""
    found = set()
    for run in runs:
        path = folder / paths.sidecar(run.model)
        machine = read_json(path).get("machine", {}) if path.is_file() else {}
        found.add(", ".join(f"{k} {v}" for k, v in machine.items()) or "not recorded")
    return sorted(found)


def _shown(path: Path) -> str:
    """Return a path as a command in the repository names it, without the machine's own part."""
    full = path.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else full.name


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "onnx"))
    return f"Python {platform.python_version()}, {packages}"


def write(folder: Path, out: Path) -> str:
    """Write rows.md, rows.json, rows.svg and rows.png to `out`; return the table.

    Raises:
        TinygrowError: there is no finished model.
    """
    runs, missing = collect(folder)
    if not runs:
        raise TinygrowError(f"no model of {folder} is finished: {'; '.join(missing)}")
    command = f"python -m benchmarks.rows {_shown(folder)} {_shown(out)}"
    machines = _machines(folder, runs)
    text = markdown(runs, missing, command, machines)
    svg, png = draw_rows({row: [r for r in runs if r.row == row] for row in summarise(runs)}, label)
    write_text(out / "rows.md", text)
    write_text(out / "rows.svg", svg)
    write_bytes(out / "rows.png", png)
    summary = {
        row: {column: asdict(cell) for column, cell in cells.items()}
        for row, cells in summarise(runs).items()
    }
    value: dict[str, Any] = {
        "command": command,
        "machines": machines,
        "versions": _versions(),
        "missing": missing,
        "summary": summary,
        "runs": [{k: v for k, v in asdict(run).items() if k != "curve"} for run in runs],
    }
    write_json(out / "rows.json", value)
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows", description=__doc__)
    parser.add_argument("pipeline", type=Path, help="folder that holds params.yaml")
    parser.add_argument("out", type=Path, help="folder for rows.md, rows.json and the picture")
    chosen = parser.parse_args(arguments)
    try:
        print(write(chosen.pipeline, chosen.out))
    except TinygrowError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
