"""Speed of the search for stable units, judged: `python -m benchmarks.compress`.

Two targets (2 cores): the interval bounds of ResNet-18 in the form of this project at full width
(base width 64, 32 x 32 images, BatchNorm statistics drawn at random: speed does not hang on them)
take less than 60 s; and the ladder (intervals, whole numbers, data, climbing, linear bounds, then a
program for each unit that is left) settles the paper's networks of 2 x 100 units at least 20 times
faster than programs of single units with the same solver.

The rival is LEO's way: two programs for every unit of every hidden layer, with the same interval
bounds as big-M and on all layers before it, each stopped as soon as the sign is sure and at most
`--each` seconds long; `--seconds` ends them all, and the ratio is then one of at least. `open` is a
milder rival, beside the target: programs of those units alone that intervals and data leave open.
The networks are trained here by the recipe with Adam, on shifted digits of 28 x 28 pixels.

The last line is one JSON object with `holds`; the exit status is 1 where a target is missed.
Without highspy the second target is left out, with SKIPPED and the reason.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.stability_networks import Data, accuracy, digits, program, train, untrained
from benchmarks.timing import figures, surroundings
from tinygrow.architecture import final_architecture
from tinygrow.data.prepared import DataCard
from tinygrow.networks.build import build_network
from tinygrow.observer import Observer
from tinygrow.products.fold import fold_batch_norm
from tinygrow.settings.compress import StabilitySettings
from tinygrow.settings.network import ResNetSettings
from tinygrow.stability.found import Kind
from tinygrow.stability.interval import interval_bounds
from tinygrow.stability.isa import ask_one_by_one
from tinygrow.stability.ledger import Ledger
from tinygrow.stability.program import Program, program_of
from tinygrow.stability.refute import look_at_data
from tinygrow.stability.search import find_stable
from tinygrow.stability.solver import has_solver

MOST_INTERVAL_SECONDS = 60.0
LEAST_SPEEDUP = 20.0
LADDER = StabilitySettings(
    bounds="crown", exact=True, milp="per_neuron", milp_seconds=600, data_images=2000, pgd_steps=20
)


def interval_seconds(base_width: int, repeats: int) -> list[float]:
    """Time the interval bounds of a ResNet-18, repeat by repeat."""
    settings, shape = ResNetSettings(base_width=base_width), (3, 32, 32)
    network = build_network(final_architecture(settings, shape, 10), 0)
    torch.manual_seed(0)
    with torch.no_grad():
        for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            norm.weight.uniform_(0.0, 1.0)
            norm.bias.normal_()
    card = DataCard(
        name="noise",
        source="random numbers",
        classes=tuple(map(str, range(10))),
        shape=shape,
        mean=(0.49, 0.48, 0.45),
        std=(0.25, 0.24, 0.26),
        counts={},
    )
    found = program_of(fold_batch_norm(network), card)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        interval_bounds(found)
        seconds.append(time.perf_counter() - started)
    return seconds


def ladder(found: Program, data: Data) -> dict[str, Any]:
    """Time the ladder on one network."""
    started = time.perf_counter()
    stability = find_stable(found, data.train, LADDER, Observer())
    seconds = time.perf_counter() - started
    methods = [p.method for layer in stability.layers for p in layer.proved]
    return {
        "seconds": round(seconds, 3),
        "rungs": {name: round(value, 3) for name, value in stability.seconds.items()},
        **stability.counts(),
        "by": {method: methods.count(method) for method in dict.fromkeys(methods)},
        "stable": sorted((p.layer, p.index, p.kind) for x in stability.layers for p in x.proved),
        "notes": stability.notes,
    }


def single_programs(
    found: Program, *, seconds: float, each: float, open_after: Data | None
) -> dict[str, Any]:
    """Time programs of single units: of all of them, or of those that are open after data."""
    started = time.perf_counter()
    bounds = interval_bounds(found)
    ledger = Ledger(found, bounds)
    for layer in ledger.layers:  # of what intervals settle no program has anything to ask
        ledger.settle_node(layer, bounds[layer.name], "interval")
    if open_after is None:
        every = {layer.name: range(layer.shape[0]) for layer in ledger.layers}

        def units(layer: str, kind: Kind) -> Sequence[int]:
            return every[layer]
    else:
        look_at_data(ledger, open_after.train[: LADDER.data_images])
        units = ledger.open  # type: ignore[assignment]
    asked = ask_one_by_one(ledger, bounds, seconds, each=each, units=units, lean=False)
    wanted = sum(2 * layer.shape[0] for layer in ledger.layers)
    return {
        "seconds": round(time.perf_counter() - started, 3),
        "programs": asked.solves,
        "of": wanted if open_after is None else None,
        "timed_out": asked.timed_out,
        "finished": not any("time was up" in note for note in asked.notes),
        "stable": sorted(
            (name, index, kind) for name, proofs in ledger.proofs.items() for index, kind in proofs
        ),
    }


def compare(data: Data, l1: float, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train one network, settle it both ways, and compare."""
    network = train(
        untrained(data, (chosen.width,) * 2, chosen.seed),
        data,
        recipe="adam",
        l1=l1,
        seed=chosen.seed,
        epochs=chosen.epochs,
    )
    found = program(network, data)
    ours = ladder(found, data)
    limits = {"seconds": chosen.seconds, "each": chosen.each}
    theirs = single_programs(found, **limits, open_after=None)
    milder = single_programs(found, **limits, open_after=data)
    result = {
        "network": f"2x{chosen.width}",
        "l1": l1,
        "accuracy": round(accuracy(network, data), 2),
        "ladder": ours,
        "single": theirs,
        "open": milder,
        "times": round(theirs["seconds"] / ours["seconds"], 1),
        "times_open": round(milder["seconds"] / ours["seconds"], 1),
        "at_least": not theirs["finished"] or theirs["timed_out"] > 0,
        "proved_only_by_single": len(set(theirs["stable"]) - set(ours["stable"])),
    }
    for side in (ours, theirs, milder):
        side["stable"] = len(side["stable"])
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compress", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--base-width", type=int, default=64, metavar="CHANNELS")
    parser.add_argument("--repeats", type=int, default=5, help="of the interval bounds")
    parser.add_argument("--width", type=int, default=100, help="units of both hidden layers")
    parser.add_argument("--l1", type=float, nargs="*", default=[0.0, 2e-4], metavar="STRENGTH")
    parser.add_argument("--epochs", type=int, default=50, help="of the recipe adam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=float, default=5.0, help="seconds of one unit's program")
    parser.add_argument("--seconds", type=float, default=60.0, help="of all of a network's")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    around = surroundings(torch.device("cpu"))
    seconds = interval_seconds(chosen.base_width, chosen.repeats)
    result: dict[str, Any] = {"benchmark": "compress", "arguments": vars(chosen), **around}
    result["interval_seconds"] = figures(seconds)
    result["holds"] = {"interval": max(seconds) < MOST_INTERVAL_SECONDS}
    print(f"interval bounds, base width {chosen.base_width}: {max(seconds):.2f} s at most")
    if has_solver():
        data = digits()
        result["networks"] = []
        for l1 in chosen.l1:
            row = compare(data, l1, chosen)
            result["networks"].append(row)
            least = "at least " if row["at_least"] else ""
            print(
                f"{row['network']}, l1 {l1:g}: ladder {row['ladder']['seconds']:.2f} s, single"
                f" programs {row['single']['seconds']:.1f} s ({row['single']['programs']} of"
                f" {row['single']['of']}): {least}{row['times']:g} times"
            )
        result["holds"]["speedup"] = all(
            row["times"] >= LEAST_SPEEDUP
            and row["ladder"]["unknown"] == 0
            and not row["proved_only_by_single"]
            for row in result["networks"]
        )
    else:
        result["skipped"] = "SKIPPED: the solver highspy is not installed (tinygrow[milp])"
        print(result["skipped"])
    print(json.dumps(result))
    return 0 if all(result["holds"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
