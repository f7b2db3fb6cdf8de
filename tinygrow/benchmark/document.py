"""A benchmark as JSON, CSV and a table for a terminal."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tinygrow.benchmark.measure import ROUNDS, Cell, Plan
from tinygrow.errors import TinygrowError
from tinygrow.machine import processor
from tinygrow.report import numbers
from tinygrow.table import to_csv

_ENGINES = {"onnxruntime": "ONNX Runtime", "pytorch": "PyTorch"}
_PACKAGES = ("tinygrow", "onnxruntime-gpu", "onnxruntime", "torch", "numpy")


def to_document(
    model: str,
    cells: Sequence[Cell],
    plan: Plan,
    *,
    checksums: Mapping[str, str],
    absent: Sequence[str],
    surroundings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything as plain data.

    Args:
        model: its name.
        cells: what was measured.
        plan: what was to be measured.
        checksums: SHA-256 of each precision's file, by which a reader tells whether the figures
            are of the file at hand.
        absent: a line on each contender that does not run here.
        surroundings: from `surroundings`, asked for before measuring.
    """
    return {
        "model": model,
        "checksums": dict(checksums),
        "machine": dict(surroundings),
        "plan": asdict(plan) | {"batches": list(plan.batches), "rounds": ROUNDS},
        "cells": [asdict(cell) | {"cut": cell.cut} for cell in cells],
        "absent": list(absent),
    }


def surroundings(threads: int, gpu: str | None = None) -> dict[str, Any]:
    """Return what the numbers depend on; to be asked before measuring.

    The load is of the last minute: what else kept the machine busy.

    Args:
        threads: of the CPU.
        gpu: its name, where there is one.
    """
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    found: dict[str, Any] = {
        "processor": processor(),
        **({"gpu": gpu} if gpu else {}),
        "system": platform.system(),
        "threads": threads,
        "load_before": load,
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_document(path: Path) -> dict[str, Any] | None:
    """Return what `benchmark` wrote, or None where it never ran.

    Raises:
        TinygrowError: the file is damaged.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = document["cells"], document["checksums"], document["machine"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise TinygrowError(
            f"{path} is not what the benchmark writes ({error!r}); run it again or delete the file"
        ) from error
    return document


def cells_of(document: Mapping[str, Any], checksums: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the cells that may stand beside these products: of the same files, and PyTorch's.

    Args:
        document: from `read_document`.
        checksums: SHA-256 of the products at hand, by precision.
    """
    same = {p for p, checksum in checksums.items() if document["checksums"].get(p) == checksum}
    return [
        cell
        for cell in document["cells"]
        if cell["runs"] and (cell["variant"] in same if cell["engine"] == "onnxruntime" else same)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedTable:
    """Medians as people read them, a row a contender.

    Attributes:
        batches: images a call, ascending.
        rows: engine, variant, device; milliseconds at each batch; images per second at each.
        runs: timed calls of a cell, `200` or `17 to 200`.
    """

    batches: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]
    runs: str


def speed_table(cells: Sequence[Mapping[str, Any]]) -> SpeedTable:
    """Return the table of `cells`, as the JSON file has them; without cells an empty one."""
    batches = tuple(sorted({cell["batch"] for cell in cells}))
    rows = []
    for key in dict.fromkeys((c["engine"], c["variant"], c["device"]) for c in cells):
        own = {c["batch"]: c for c in cells if (c["engine"], c["variant"], c["device"]) == key}
        latency = [_number(own[b]["p50_ms"] if b in own else None) for b in batches]
        rates = [numbers.count(own[b]["images_per_second"] if b in own else None) for b in batches]
        rows.append((_ENGINES.get(key[0], key[0]), *key[1:], *latency, *rates))
    runs = sorted({cell["runs"] for cell in cells})
    told = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else "".join(map(str, runs))
    return SpeedTable(batches=batches, rows=tuple(rows), runs=told)


def machine_line(machine: Mapping[str, Any]) -> str:
    """Return what figures were measured on, in one line."""
    return ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)


def cells_to_csv(cells: Sequence[Cell]) -> str:
    """Return one row a cell."""
    return to_csv([*(f.name for f in fields(Cell)), "cut"], cells)


def table(cells: Sequence[Cell]) -> str:
    """Return latency at the smallest batch and images per second at each, a line a contender."""
    batches = sorted({cell.batch for cell in cells})
    first = batches[0]
    head = ["engine", "variant", "device"]
    head += [f"{p} ms at {first}" for p in ("p50", "p90", "p99")]
    head += [f"images/s at {batch}" for batch in batches]
    rows = [head]
    for key in dict.fromkeys((c.engine, c.variant, c.device) for c in cells):
        own = {c.batch: c for c in cells if (c.engine, c.variant, c.device) == key}
        latency = [_number(x) for x in (own[first].p50_ms, own[first].p90_ms, own[first].p99_ms)]
        rows.append([*key, *latency, *(_rate(own[batch]) for batch in batches)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if i < 3 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def remarks(cells: Sequence[Cell], absent: Sequence[str]) -> list[str]:
    """Return a line on each cell that is not what it should be, and on all that was left out."""
    lines = [
        f"CUT by the time budget: {_name(c)}, batch {c.batch}: {c.runs} of {c.wanted} timed runs"
        for c in cells
        if c.cut
    ]
    failed = {(_name(c), c.reason): c for c in cells if not c.runs}
    lines += [f"NOT MEASURED: {name}: {reason}" for name, reason in failed]
    return lines + [f"NOT MEASURED: {line}" for line in absent]


def _name(cell: Cell) -> str:
    return f"{cell.engine} {cell.variant} on {cell.device}"


def _number(value: float | None) -> str:
    return numbers.milliseconds(value).removesuffix(" ms")


def _rate(cell: Cell) -> str:
    return numbers.count(cell.images_per_second) + ("*" if cell.cut else "")
