"""Accuracy against exact compression: `python -m benchmarks.compression OUT`.

A network is trained with a penalty that makes units stable, folded, and compressed by interval
bounds alone, as the stage `compress` does by default. What is left computes the same function. A
finished cell (strength of the penalty, seed) is a file of its own in OUT: what is there is skipped.

    python -m benchmarks.compression OUT/digits --data digits.safetensors --task digits
    python -m benchmarks.compression OUT/cifar10 --data cifar10.pt --task cifar10
    python -m benchmarks.compression OUT --picture docs/results/compression
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.compression_report import write_report
from benchmarks.images import Images, make_runs
from benchmarks.timing import surroundings
from tinygrow.architecture import final_architecture
from tinygrow.checkpoint import Checkpoint
from tinygrow.errors import TinygrowError
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.observer import Observer
from tinygrow.settings.compress import CompressSettings
from tinygrow.settings.network import MLPSettings, NetworkSettings, ResNetSettings
from tinygrow.settings.training import (
    AugmentationSettings,
    FinetuneSettings,
    InducementSettings,
    TrainingSettings,
)
from tinygrow.stability.compress import compress
from tinygrow.training.batches import TrainingStream
from tinygrow.training.device import pick_device
from tinygrow.training.evaluate import evaluate
from tinygrow.training.finetune import finetune

Penalty = Literal["l1_norm", "l1_weights", "rs_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained, and on how much.

    Attributes:
        train_images: of the training images.
        validation_images: others of them, held out.
        test_images: looked at once, when a cell is finished.
        network: at its full width from the start.
        penalty: whose strength is varied.
        strengths: of it.
        epochs: with the learning rate falling to zero.
        crop_padding: of the augmentation.
        flip: likewise.
        weight_decay: on weights.
    """

    train_images: int
    validation_images: int
    test_images: int
    network: NetworkSettings
    penalty: Penalty
    strengths: tuple[float, ...]
    epochs: int
    crop_padding: int = 1
    flip: Literal["random", "off"] = "off"
    weight_decay: float = 5e-4

    def training(self, strength: float) -> FinetuneSettings:
        """Return the recipe of a cell."""
        return FinetuneSettings(
            epochs=self.epochs,
            evaluate_every=self.epochs,
            stability=InducementSettings(**{self.penalty: strength}),
            training=TrainingSettings(
                learning_rate=0.05,
                momentum=0.9,
                nesterov=True,
                weight_decay=self.weight_decay,
                batch_size=64,
                schedule="cosine",
                warmup_epochs=1.0,
                augmentation=AugmentationSettings(crop_padding=self.crop_padding, flip=self.flip),
            ),
        )


_RESIDUAL = ResNetSettings(base_width=8, blocks=(1, 1, 1, 1), start=0.25)
_DIGITS = {"train_images": 1200, "validation_images": 80, "test_images": 359}

TASKS: dict[str, Task] = {
    "digits": Task(
        **_DIGITS,
        network=_RESIDUAL,
        penalty="l1_norm",
        strengths=(0.0, 0.05, 0.1, 0.2, 0.3, 0.4),
        epochs=20,
    ),
    "digits-mlp": Task(
        **_DIGITS,
        network=MLPSettings(hidden=(100, 100), start=0.25),
        penalty="l1_weights",
        strengths=(0.0, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2),
        epochs=40,
        weight_decay=0.0,
    ),
    "cifar10": Task(
        train_images=4000,
        validation_images=1000,
        test_images=10_000,
        network=_RESIDUAL,
        penalty="l1_norm",
        strengths=(0.0, 0.02, 0.05, 0.07, 0.1, 0.2, 0.4),
        epochs=10,
        crop_padding=4,
        flip="random",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all cells of a folder share; each field as in `Task`."""

    task: str
    train_images: int
    validation_images: int
    test_images: int
    epochs: int
    penalty: str
    network: Any
    training: Any = field(default=None)


def one_cell(task: Task, strength: float, seed: int, images: Images) -> dict[str, Any]:
    """Train and compress one network; return its record as plain values."""
    settings = task.training(strength)
    final = final_architecture(task.network, images.card.shape, len(images.card.classes))
    device = images.train.device
    network = build_network(final, seed).to(device, memory_format=torch.channels_last)
    stream = TrainingStream(images.train, settings.training.augmentation, seed)
    where, began = surroundings(device), time.process_time()
    done = finetune(network, stream, images.validation, settings)
    trained = time.process_time()
    pixels = images.train.images_NHWC.permute(0, 3, 1, 2).cpu()
    made = compress(
        Checkpoint(final, done.network, {}), images.card, pixels, CompressSettings(), Observer()
    )
    compressed = time.process_time()
    before, after = made.folded.to(device), made.network.to(device)
    shape = images.card.shape
    return {
        "strength": strength,
        "seed": seed,
        "validation_accuracy": done.rows[-1].validation_accuracy,
        "test_accuracy": evaluate(before, images.test)[1],
        "test_accuracy_after": evaluate(after, images.test)[1],
        "different_answers": _different(before, after, images),
        "parameters": count_parameters(before),
        "parameters_after": count_parameters(after),
        "multiply_adds": count_multiply_adds(before, shape),
        "multiply_adds_after": count_multiply_adds(after, shape),
        "units": sum(found.width for found in made.stability.layers),
        "actions": dict(Counter(made.rewritten.actions.values())),
        **made.stability.counts(),
        "training_seconds": trained - began,
        "compression_seconds": compressed - trained,
        "where": where,
    }


@torch.no_grad()
def _different(before: torch.nn.Module, after: torch.nn.Module, images: Images) -> int:
    """Return how many test images get another class."""
    count = torch.zeros((), dtype=torch.int64, device=images.test.device)
    for batch, _ in images.test.batches(500):
        count += (before(batch).argmax(1) != after(batch).argmax(1)).sum()
    return int(count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what cells are missing, or the picture and the tables of those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the cells, or of such folders")
    parser.add_argument("--task", choices=list(TASKS), help="what is trained")
    parser.add_argument("--data", type=Path, help="prepared *.safetensors, or *.pt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--strengths", type=float, nargs="+", help="default: the task's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FOLDER",
        help="write the picture and print the tables",
    )
    options = parser.parse_args(arguments)
    try:
        if options.picture:
            print(write_report(options.out, options.picture))
            return 0
        if options.task is None or options.data is None:
            parser.error("--task and --data are needed for cells")
        _make(options.out, options.task, options)
    except TinygrowError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _make(out: Path, name: str, options: argparse.Namespace) -> None:
    task = TASKS[name]
    counts: Mapping[str, Any] = {
        key: getattr(task, key)
        for key in ("train_images", "validation_images", "test_images", "epochs", "penalty")
    }
    training = task.training(0.0).training
    setup = Setup(task=name, **counts, network=task.network, training=training)
    strengths = {f"{strength:g}": strength for strength in options.strengths or task.strengths}
    for strength, seed, record in make_runs(
        out,
        strengths,
        options.seeds,
        setup,
        options.data,
        pick_device(options.device),
        lambda strength, seed, images: one_cell(task, strengths[strength], seed, images),
    ):
        print(
            f"{name} {task.penalty} {strength} seed {seed}: validation"
            f" {record['validation_accuracy']:.2f} %, {record['parameters']:,} ->"
            f" {record['parameters_after']:,} parameters, {record['training_seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
