"""The paper's experiment as tables and pictures: `python -m benchmarks.paper OUT FOLDER...`.

Each folder holds `params.yaml` and what `dvc repro` has made of it so far, such as
`experiments/paper-small`; cells of one experiment may lie in several clones of it. What is missing
is named, never made up. Writes results.json, cells.jsonl, a picture for each data set and axis, and
the tables: between the marks in OUT/README.md where it has them, else to OUT/results.md. The file
cells.jsonl can stand for the folders that it came from.
"""

import argparse
import math
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.paper_cells import SCRATCH, Cell, collect, write_cells
from benchmarks.paper_picture import AXES, draw
from benchmarks.paper_table import (
    differences,
    differences_table,
    results_table,
    settings_of,
    summarise,
)
from pipeline import paths
from tinygrow.checkpoint import load_checkpoint
from tinygrow.data.prepared import load_card, load_split
from tinygrow.errors import TinygrowError
from tinygrow.files import write_bytes, write_json, write_text
from tinygrow.training.batches import DeviceImages
from tinygrow.training.evaluate import evaluate

BEGIN, END = "<!-- results: benchmarks.paper -->", "<!-- end of results -->"


def write(
    out: Path, folders: Sequence[Path], *, test_of_growth: bool = False, device: str = "cpu"
) -> str:
    """Write tables, figures and cells to `out`; return the tables with what goes with them.

    Args:
        out: folder.
        folders: pipeline folders, or files of cells.
        test_of_growth: also measure the network that growth ended with on the test images.
        device: that it is measured on.

    Raises:
        TinygrowError: no cell is finished.
    """
    cells, missing = collect(folders)
    if not cells:
        raise TinygrowError(f"no cell is finished: {'; '.join(missing)}")
    if test_of_growth:
        cells = [_tested(cell, folders, device) for cell in cells]
    command = " ".join(["python -m benchmarks.paper", _shown(out), *map(_shown, folders)])
    command += " --test-of-growth" * test_of_growth
    parts = []
    for setting, group in settings_of(cells).items():
        pictures = []
        for axis in AXES:
            if any(not math.isnan(axis.of(point)) for cell in group for point in cell.curve):
                svg, png = draw(group, axis, ", ".join(setting))
                stem = f"{_slug(setting)}-{axis.name}"
                write_text(out / f"{stem}.svg", svg)
                write_bytes(out / f"{stem}.png", png)
                pictures.append((f"validation accuracy {axis.title}", f"{stem}.svg"))
        parts.append(_section(setting, group, pictures))
    text = "\n".join([*parts, _ending(cells, missing, command)])
    _write_tables(out, text)
    write_text(out / "cells.jsonl", write_cells(cells))
    write_json(out / "results.json", _plain(_summary(cells, missing, command)))
    return text


def _write_tables(out: Path, text: str) -> None:
    page = out / "README.md"
    old = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        write_text(page, f"{before}{begin}\n\n{text}\n{end}{after}")
    else:
        write_text(out / "results.md", text)


def _section(
    setting: tuple[str, str], cells: Sequence[Cell], pictures: Sequence[tuple[str, str]]
) -> str:
    lines = [f"### {', '.join(setting)}", "", *results_table(cells), ""]
    lines += ["**Differences**", "", *differences_table(cells), ""]
    for words, file in pictures:
        lines += [f"![{words}]({file})", ""]
    lines.append(
        "Bold: mean over seeds; thin lines and shade: single seeds and their range; the mark is the"
        " end of growth."
    )
    failed = [cell.model for cell in cells if not cell.validated]
    if failed:
        lines += ["", f"Did not pass the gate: {', '.join(failed)}."]
    return "\n".join([*lines, ""])


def _ending(cells: Sequence[Cell], missing: Sequence[str], command: str) -> str:
    lines = ["### What this was made of", "", f"Cells: {', '.join(c.model for c in cells)}.", ""]
    if missing:
        lines += [f"Missing ({len(missing)}):", "", *(f"- {line}" for line in missing), ""]
    else:
        lines += ["Nothing is missing of what these folders declare.", ""]
    machines = "; ".join(sorted({cell.machine for cell in cells}))
    lines += [f"Made by `{command}`. Machine: {machines}. {_versions()}.", ""]
    return "\n".join(lines)


def _summary(cells: Sequence[Cell], missing: Sequence[str], command: str) -> dict[str, Any]:
    rows = [
        asdict(design) | {name: asdict(f) if f else None for name, f in row.items()}
        for design, row in summarise(cells).items()
    ]
    compared = [
        asdict(difference)
        for group in settings_of(cells).values()
        for difference in differences(group)
    ]
    return {
        "command": command,
        "machines": sorted({cell.machine for cell in cells}),
        "versions": _versions(),
        "missing": list(missing),
        "designs": rows,
        "differences": compared,
        "cells": [{k: v for k, v in asdict(c).items() if k != "curve"} for c in cells],
    }


def _tested(cell: Cell, folders: Sequence[Path], device: str) -> Cell:
    """Return the cell with the test accuracy of the network that growth ended with."""
    if cell.design.method == SCRATCH or cell.growth_test_accuracy is not None:
        return cell
    for folder in folders:
        checkpoint = folder / paths.grown(cell.model)
        data = folder / paths.prepared(cell.design.data)
        if checkpoint.is_file() and data.is_file():
            place = torch.device(device)
            network = load_checkpoint(checkpoint).network.to(place)
            images = DeviceImages(load_split(data, "test"), load_card(data), place)
            return replace(cell, growth_test_accuracy=evaluate(network, images)[1])
    return cell


def _slug(setting: tuple[str, str]) -> str:
    words = " ".join(setting).replace("base width ", "w")
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _plain(value: Any) -> Any:
    """Return the value with None for NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _shown(path: Path) -> str:
    """Return a path as a command in the repository names it, without the machine's own part."""
    full = path.resolve()
    if full.is_relative_to(Path.cwd()):
        return str(full.relative_to(Path.cwd()))
    return f"CLONE/{'/'.join(full.parts[-2:])}"


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "onnx"))
    return f"Python {platform.python_version()}, {packages}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for tables, pictures and cells")
    parser.add_argument("folders", type=Path, nargs="+", help="pipeline folders, or cells.jsonl")
    parser.add_argument(
        "--test-of-growth",
        action="store_true",
        help="also measure the network at the end of growth on the test images (decides nothing)",
    )
    parser.add_argument("--device", default="cpu", help="for --test-of-growth")
    chosen = parser.parse_args(arguments)
    try:
        text = write(
            chosen.out,
            chosen.folders,
            test_of_growth=chosen.test_of_growth,
            device=chosen.device,
        )
    except TinygrowError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
