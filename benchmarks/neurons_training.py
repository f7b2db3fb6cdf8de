"""Accuracy after equal training: `python -m benchmarks.neurons_training DATA OUT`.

Each variant widens the sites at depths 2, 7, 12 and 17 of the checkpoints of `benchmarks.neurons`
once, by the real `extend`, and trains on. OUT is the folder of that benchmark: its checkpoints are
read from there, and each run becomes a line of OUT/training-SCHEDULE.jsonl. The last line of stdout
is one JSON object.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.neurons import DEPTHS, Setting, finished, setting_of
from benchmarks.neurons_variants import PLAIN, VARIANTS
from benchmarks.timing import surroundings
from tinygrow.growth.extend import extend
from tinygrow.growth.schedule import neurons_per_extension
from tinygrow.growth.sites import sites_of
from tinygrow.training.evaluate import evaluate
from tinygrow.training.loop import Trainer

Schedule = Literal["constant", "cosine"]


def train_on(
    setting: Setting, name: str, seed: int, epochs: int, further: int, schedule: Schedule
) -> dict[str, Any]:
    """Widen each site once as the variant does, train, and return held-out accuracies.

    Args:
        setting: of the comparison.
        name: of the variant.
        seed: of the checkpoint.
        epochs: of its training.
        further: epochs of training after the extensions.
        schedule: of their learning rate.
    """
    settings = VARIANTS[name].change(setting.settings)
    settings = replace(settings, training=replace(settings.training, schedule=schedule))
    network = setting.network(seed, epochs)
    stream = setting.stream(1_000_000 + seed)
    trainer = Trainer(network, stream, settings.training, total_epochs=further)
    generator = torch.Generator().manual_seed(seed)
    counts = neurons_per_extension(
        setting.start.middle_widths, setting.final.middle_widths, settings.extensions
    )
    for site, count in zip(sites_of(setting.start), counts, strict=True):
        if site.depth in DEPTHS:
            extend(network, site, count, trainer, settings, generator=generator)
    row: dict[str, Any] = {
        "variant": name,
        "seed": seed,
        "epochs": epochs,
        "further": further,
        "schedule": schedule,
    }
    row["loss_grown"], row["accuracy_grown"] = evaluate(network, setting.held_out)
    curve = []
    # The batches of training are not those of the search: the same stream for every variant.
    trainer.stream.restore(setting.stream(2_000_000 + seed).state())
    trainer.batch_size = float(settings.training.batch_size)
    for _ in range(further):
        trainer.train(1.0)
        curve.append(evaluate(network, setting.held_out))
    return row | {"curve": curve, "loss": curve[-1][0], "accuracy": curve[-1][1]}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and deviation of each variant, and the mean difference to plain by seed."""
    table = {}
    plain = {r["seed"]: r for r in rows if r["variant"] == PLAIN}
    for name in dict.fromkeys(r["variant"] for r in rows):
        chosen = [r for r in rows if r["variant"] == name]
        gaps = [r["accuracy"] - plain[r["seed"]]["accuracy"] for r in chosen if r["seed"] in plain]
        table[name] = {
            "n": len(chosen),
            "grown": _spread([r["accuracy_grown"] for r in chosen]),
            "accuracy": _spread([r["accuracy"] for r in chosen]),
            "loss": _spread([r["loss"] for r in chosen]),
            "over_plain": _spread(gaps) if gaps else None,
        }
    return table


def _spread(values: Sequence[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 4), "sd": round(deviation, 4)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the summary; accuracies are percentages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path, help="of benchmarks.neurons")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4, help="of training before")
    parser.add_argument("--further", type=int, default=3, help="epochs of training after")
    parser.add_argument("--variants", nargs="+", required=True, choices=list(VARIANTS))
    parser.add_argument("--schedule", choices=["constant", "cosine"], default="cosine")
    options = parser.parse_args(arguments)
    about = surroundings(torch.device("cpu"))
    setting = setting_of(options.data, options.folder, (options.epochs,))
    path = options.folder / f"training-{options.schedule}.jsonl"
    for seed in options.seeds:
        for name in dict.fromkeys([PLAIN, *options.variants]):
            if (name, seed) in {(r["variant"], r["seed"]) for r in finished(path)}:
                continue
            row = train_on(setting, name, seed, options.epochs, options.further, options.schedule)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"seed {seed} {name}: {row['accuracy']:.2f} %", file=sys.stderr, flush=True)
    print(json.dumps({"variants": summary(finished(path)), **about}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
