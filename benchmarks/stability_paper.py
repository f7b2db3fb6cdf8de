"""The paper's experiment on exact compression: `python -m benchmarks.stability_paper RUNS`.

Fully connected classifiers are trained with l1 on their weights, and settled three ways: by bounds
and refutation alone, by ISA (candidates from the data, intervals as big-M, as the paper has it),
and by two programs for each unit (LEO; `--each` seconds at most, `--seconds` in all). What bounds
prove is then removed, and neurons and connections are counted, the latter with and without the
weights of the input, which the paper's figures leave out (exact_compression.md 3.7). Seconds are
the processor's, while the limits are those of the clock.

    python -m benchmarks.stability_paper RUNS --data cifar10.pt
    python -m benchmarks.stability_paper RUNS --table docs/results/stability

Each network is a file in RUNS and is skipped where it is there. `--data` is a file of `torch.save`
that holds {"train": (uint8 images, labels), "test": likewise}; without it there are digits alone.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.stability_networks import Data, accuracy, digits, given, program, train, untrained
from benchmarks.timing import surroundings
from tinygrow.files import write_json
from tinygrow.observer import Observer
from tinygrow.settings.compress import CompressSettings, StabilitySettings
from tinygrow.stability.found import Stability
from tinygrow.stability.interval import Bounds, interval_bounds
from tinygrow.stability.isa import Asked, ask_at_once, ask_one_by_one
from tinygrow.stability.ledger import Ledger
from tinygrow.stability.program import Program
from tinygrow.stability.refute import look_at_data
from tinygrow.stability.rewrite import rewrite
from tinygrow.stability.search import find_stable
from tinygrow.stability.solver import has_solver

BOUNDS = StabilitySettings(bounds="crown", exact=True, data_images=2000, pgd_steps=20)
TRAIN_IMAGES = 10_000  # of a file that is given
# Accuracy, neurons and connections removed (percent), seconds of ISA with Gurobi: the paper's
# second version on MNIST, whose place digits take here, and CIFAR-10 (exact_compression.md 3).
PAPER = {
    ("digits", "2x100", 0.0): (97.92, 0, 0, 3.4),
    ("digits", "2x100", 1e-4): (98.12, 3.4, 6, 3.5),
    ("digits", "2x100", 2e-4): (97.91, 18, 31, 3.5),
    ("digits", "2x100", 4e-4): (97.28, 23, 38, 4.1),
    ("digits", "2x200", 0.0): (98.03, 0, 0, 6.9),
    ("digits", "2x200", 2e-4): (97.95, 20.8, 36.6, 8),
    ("digits", "2x400", 0.0): (98.1, 0, 0, 14.8),
    ("digits", "2x400", 2e-4): (97.87, 18, 33, 1000),
    ("digits", "3x100", 0.0): (97.86, 0, 0, 3.9),
    ("digits", "3x100", 2e-4): (98.0, 18, 30, 20),
    ("cifar10", "2x100", 0.0): (54.3, 0, 0, 13.4),
    ("cifar10", "2x100", 5e-5): (53.6, 31, 56, 13),
    ("cifar10", "2x100", 2e-4): (50.1, 45, 71, 12),
    ("cifar10", "2x100", 4e-4): (46.3, 56, 81, 10.9),
    ("cifar10", "2x200", 5e-5): (56.3, 28, 54, 30),
    ("cifar10", "2x400", 5e-5): (58.2, 28, 54, 60),
    ("cifar10", "3x100", 5e-5): (53.8, 22.3, 32, 13),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One network of the experiment."""

    data: str
    widths: tuple[int, ...]
    recipe: str
    l1: float
    seed: int = 0

    @property
    def name(self) -> str:
        """Return the name of its file."""
        shape = f"{len(self.widths)}x{self.widths[0]}"
        return f"{self.data}-{shape}-{self.recipe}-{self.l1:g}-s{self.seed}"


def cells() -> list[Cell]:
    """Return all networks, those that tell most first."""
    two, three = (100, 100), (100, 100, 100)
    found = [Cell("digits", two, "adam", l1) for l1 in (0.0, 1e-4, 2e-4, 4e-4)]
    found += [Cell("cifar10", two, "adam", l1) for l1 in (0.0, 5e-5, 2e-4, 4e-4)]
    found += [Cell("digits", two, "sgd", l1) for l1 in (0.0, 2e-4, 4e-4)]
    for widths in (three, (200, 200), (400, 400)):
        found += [Cell("digits", widths, "adam", l1) for l1 in (0.0, 2e-4, 4e-4)]
    found += [Cell("cifar10", widths, "adam", 5e-5) for widths in (three, (200, 200), (400, 400))]
    found += [Cell("cifar10", two, "sgd", l1) for l1 in (0.0, 5e-5, 2e-4)]
    return found


def run(cell: Cell, data: Data, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train one network and settle it."""
    network = untrained(data, cell.widths, cell.seed)
    started = time.process_time()
    train(network, data, recipe=cell.recipe, l1=cell.l1, seed=cell.seed)
    result: dict[str, Any] = {
        "cell": cell.name,
        "l1": cell.l1,
        "recipe": cell.recipe,
        "train_seconds": round(time.process_time() - started, 1),
        "accuracy": round(accuracy(network, data), 2),
    }
    found = program(network, data)
    started = time.process_time()
    stability = find_stable(found, data.train, BOUNDS, Observer())
    result["bounds"] = {
        "seconds": round(time.process_time() - started, 3),
        **stability.counts(),
        "proved_by_layer": [
            [len(f.stable("inactive")), len(f.stable("active"))] for f in stability.layers
        ],
        "by": _methods(stability),
    }
    result["removed"] = removed(network, data, stability)
    if has_solver():
        result["isa"] = _isa(found, data, stability, chosen)
        result["single"] = _single(found, chosen)
    return result


def removed(network: nn.Module, data: Data, stability: Stability) -> dict[str, float]:
    """Remove what is proved, and return percentages of neurons and connections that are gone."""
    rewritten = rewrite(copy.deepcopy(network), data.card, stability, CompressSettings())
    before, after = (
        [m.weight for m in n.modules() if isinstance(m, nn.Linear)]
        for n in (network, rewritten.network)
    )
    images = data.test[:500].double() / 255
    reference = copy.deepcopy(network).double()(images)
    apart = (rewritten.network(images) - reference).abs().max() / reference.abs().max()

    def gone(old: float, new: float) -> float:
        return round(100 * (1 - new / old), 2)

    neurons = [sum(len(w) for w in weights[:-1]) for weights in (before, after)]
    connections = [sum(w.numel() for w in weights) for weights in (before, after)]
    inner = [sum(w.numel() for w in weights[1:]) for weights in (before, after)]
    return {
        "neurons": gone(*neurons),
        "connections": gone(*connections),
        "connections_without_input": gone(*inner),
        "relative_difference": float(apart),
    }


def _methods(stability: Stability) -> dict[str, int]:
    methods = [p.method for found in stability.layers for p in found.proved]
    return {method: methods.count(method) for method in dict.fromkeys(methods)}


def _isa(
    found: Program, data: Data, stability: Stability, chosen: argparse.Namespace
) -> dict[str, Any]:
    """Run the data and then ISA, with interval bounds as big-M."""
    started = time.process_time()
    bounds = interval_bounds(found)
    ledger = _settled(found, bounds)
    look_at_data(ledger, data.train[: BOUNDS.data_images])
    asked = ask_at_once(ledger, bounds, chosen.seconds)
    ours = {(p.layer, p.index, p.kind) for f in stability.layers for p in f.proved}
    return {**_figures(ledger, asked, started), "beyond_bounds": len(_proved(ledger) - ours)}


def _single(found: Program, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run two programs for each unit."""
    started = time.process_time()
    bounds = interval_bounds(found)
    ledger = _settled(found, bounds)
    every = {layer.name: range(layer.shape[0]) for layer in ledger.layers}
    asked = ask_one_by_one(
        ledger,
        bounds,
        chosen.seconds,
        each=chosen.each,
        units=lambda layer, kind: every[layer],
        lean=False,
    )
    of = 2 * sum(len(units) for units in every.values())
    return {**_figures(ledger, asked, started), "of": of}


def _settled(found: Program, bounds: Mapping[str, Bounds]) -> Ledger:
    """Return a ledger with what intervals prove: no program of it has anything to ask."""
    ledger = Ledger(found, bounds)
    for layer in ledger.layers:
        ledger.settle_node(layer, bounds[layer.name], "interval")
    return ledger


def _proved(ledger: Ledger) -> set[tuple[str, int, str]]:
    return {(name, *unit) for name, proofs in ledger.proofs.items() for unit in proofs}


def _figures(ledger: Ledger, asked: Asked, started: float) -> dict[str, Any]:
    return {
        "seconds": round(time.process_time() - started, 2),
        "programs": asked.solves,
        "timed_out": asked.timed_out,
        "finished": not any("time was up" in n or "no end" in n for n in asked.notes),
        "proved": len(_proved(ledger)),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures of all runs as a table in Markdown."""
    lines = [
        "| network | accuracy % | inactive + active, by layer | left open | neurons removed % |"
        " connections % | without input % | bounds s | ISA s | single programs s |"
        " paper: accuracy, neurons, connections without input %, ISA s |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        stable = ", ".join(f"{i}+{a}" for i, a in row["bounds"]["proved_by_layer"])
        gone = row["removed"]
        data, shape = row["cell"].split("-")[:2]
        paper = PAPER.get((data, shape, row["l1"]))
        lines.append(
            f"| {row['cell']} | {row['accuracy']:.1f} | {stable} | {row['bounds']['unknown']} |"
            f" {gone['neurons']:.1f} | {gone['connections']:.1f} |"
            f" {gone['connections_without_input']:.1f} | {row['bounds']['seconds']:.2f} |"
            f" {_seconds(row.get('isa'))} | {_seconds(row.get('single'))} |"
            f" {'-' if paper is None else ', '.join(f'{value:g}' for value in paper)} |"
        )
    return "\n".join(lines)


def _seconds(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "-"
    of = f", {figures['programs']} of {figures['of']}" if "of" in figures else ""
    sure = figures["finished"] and not figures["timed_out"]
    return f"{'' if sure else 'at least '}{figures['seconds']:.1f}{of}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not there yet, or write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stability_paper")
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--data", type=Path, metavar="FILE", help="CIFAR-10 in a file of torch")
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="write the table and stop")
    parser.add_argument("--only", default="", metavar="TEXT", help="cells whose name holds it")
    parser.add_argument("--each", type=float, default=5.0, help="seconds of one unit's program")
    parser.add_argument("--seconds", type=float, default=60.0, help="of all programs of a network")
    chosen = parser.parse_args(arguments)
    chosen.runs.mkdir(parents=True, exist_ok=True)
    if chosen.table is not None:
        found = [chosen.runs / f"{cell.name}.json" for cell in cells()]
        rows = [json.loads(path.read_text()) for path in found if path.is_file()]
        chosen.table.mkdir(parents=True, exist_ok=True)
        (chosen.table / "table.md").write_text(table(rows) + "\n")
        write_json(chosen.table / "runs.json", rows)
        return 0
    around = surroundings(torch.device("cpu"))
    data = {"digits": digits()}
    if chosen.data is not None:
        stored = torch.load(chosen.data, weights_only=True)
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(stored["train"][1]), generator=generator)[:TRAIN_IMAGES]
        stored["train"] = tuple(tensor[order] for tensor in stored["train"])
        data["cifar10"] = given("cifar10", stored)
    for cell in cells():
        path = chosen.runs / f"{cell.name}.json"
        if path.exists() or cell.data not in data or chosen.only not in cell.name:
            continue
        limits = {"each": chosen.each, "seconds": chosen.seconds}
        result = {**run(cell, data[cell.data], chosen), "limits": limits, **around}
        write_json(path, result)
        print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
