"""Is growing cheaper than training the big network? `python -m benchmarks.schedules OUT`.

Schedules of growth, full-width networks trained for fewer epochs, and networks of uniform smaller
widths, all with one modern recipe and all from the same images: accuracy against the multiply-adds
and the seconds of the whole training, and against parameters and the latency of the exported file.
What is compared is in `schedules_plans.py`. A finished run is a file of its own in OUT; what is
there is skipped.

    python -m benchmarks.schedules OUT --data cifar10.pt --group recipe     # choose the recipe
    python -m benchmarks.schedules OUT --data cifar10.pt --seeds 0 1 2      # compare
    python -m benchmarks.schedules OUT --picture docs/results/schedules

Choices are made on validation images; of a recipe test images are never read.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.images import Images, make_runs
from benchmarks.schedules_plans import PLANS, Plan, Setup
from benchmarks.schedules_report import write_report
from benchmarks.timing import surroundings
from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.checkpoint import Checkpoint
from tinygrow.data.prepared import DataCard
from tinygrow.errors import TinygrowError
from tinygrow.growth.grow import grow
from tinygrow.growth.spent import Spent, growth_spent, training_spent
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.products.export import export_onnx
from tinygrow.products.fold import fold_batch_norm
from tinygrow.products.latency import measure_latency
from tinygrow.products.metadata import build_metadata
from tinygrow.settings.products import ExportSettings
from tinygrow.settings.training import FinetuneSettings
from tinygrow.training.batches import TrainingStream
from tinygrow.training.device import pick_device
from tinygrow.training.evaluate import evaluate
from tinygrow.training.finetune import finetune


def one_run(name: str, plan: Plan, seed: int, images: Images, setup: Setup) -> dict[str, Any]:
    """Train one network by its plan; return its record as plain values."""
    network_settings = replace(setup.network, start=plan.start)
    full = final_architecture(
        replace(setup.network, start=1.0), images.card.shape, len(images.card.classes)
    )
    start = seed_architecture(network_settings, full)
    final = full if plan.sweeps else start
    device = images.train.device
    network = build_network(start, seed).to(device, memory_format=torch.channels_last)
    recipe = replace(setup.recipe, **plan.recipe)
    stream = TrainingStream(images.train, recipe.augmentation, seed)
    where, began = surroundings(device), time.process_time()
    spent, rows, falls = Spent(), [], []
    if plan.sweeps:
        growth = plan.growth_settings(setup)
        grown = grow(network, start, final, stream, images.validation, growth, seed=seed)
        network, rows = grown.network, list(grown.rows)
        losses = {curves.extension: len(curves.losses) for curves in grown.curves}
        for part in growth_spent(rows, losses, start, growth, len(images.train)):
            spent += part
        falls = [row.validation_accuracy for row in rows]
    further = FinetuneSettings(
        epochs=plan.epochs,
        max_epochs=0,
        evaluate_every=5,
        training=replace(recipe, warmup_epochs=0.0 if plan.sweeps else recipe.warmup_epochs),
    )
    done = finetune(network, stream, images.validation, further)
    seconds = time.process_time() - began
    multiply_adds = count_multiply_adds(done.network, images.card.shape)
    spent += training_spent(done.rows[-1].images_seen, multiply_adds)
    record = {
        "plan": name,
        "seed": seed,
        "group": plan.group,
        "start": plan.start,
        "epochs": (rows[-1].images_seen / len(images.train) if rows else 0.0) + plan.epochs,
        "widths": list(rows[-1].widths if rows else start.middle_widths),
        "parameters": count_parameters(done.network),
        "multiply_adds": multiply_adds,
        "spent": asdict(spent),
        "total_spent": spent.total,
        "seconds": seconds,
        "growth_accuracy": falls[-1] if falls else None,
        "validation_accuracy": done.rows[-1].validation_accuracy,
        "further": [asdict(row) for row in done.rows],
        "test_accuracy": None,
        "latency_ms": {},
        "where": where,
    }
    if plan.group != "recipe":
        record["test_accuracy"] = evaluate(done.network, images.test)[1]
        architecture = replace(start, middle_widths=tuple(record["widths"]))
        record["latency_ms"] = latency_of(done.network, architecture, images.card, name)
    return record


def latency_of(
    network: torch.nn.Module,
    architecture: Architecture,
    card: DataCard,
    name: str,
    seconds: float = 2.0,
) -> dict[str, float]:
    """Return the median milliseconds of a call of the exported file, by batch size.

    Args:
        network: trained.
        architecture: that rebuilds it.
        card: of its images.
        name: of the model in the file.
        seconds: at most, for a batch size.
    """
    metadata = build_metadata(name, Checkpoint(architecture, network.cpu().eval()), card, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(fold_batch_norm(network), card, ExportSettings(), metadata, path)
        found = measure_latency(path, card.shape, seconds=seconds)
    return {str(entry.batch): entry.median_ms for entry in found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what runs are missing, or the pictures and the table of those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    groups = sorted({plan.group for plan in PLANS.values()})
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--data", type=Path, help="prepared *.safetensors, or *.pt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plans", nargs="+", default=None, choices=list(PLANS), metavar="PLAN")
    parser.add_argument("--group", nargs="+", default=None, choices=groups)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--picture", type=Path, metavar="FOLDER", help="write pictures and table")
    options = parser.parse_args(arguments)
    setup = Setup()
    try:
        if options.picture:
            print(write_report(options.out, options.picture))
            return 0
        if options.data is None:
            parser.error("--data is needed for runs")
        chosen = options.plans or [
            name
            for name, plan in PLANS.items()
            if (plan.group in options.group if options.group else plan.group != "recipe")
        ]
        device = pick_device(options.device)
        for name, seed, record in make_runs(
            options.out,
            chosen,
            options.seeds,
            setup,
            options.data,
            device,
            lambda name, seed, images: one_run(name, PLANS[name], seed, images, setup),
        ):
            print(
                f"{name} seed {seed}: validation {record['validation_accuracy']:.2f} %,"
                f" {record['total_spent']:.3g} multiply-adds, {record['seconds']:.0f} s",
                flush=True,
            )
    except TinygrowError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
