"""Do three networks with equal parameters converge as their wiring says?

`python -m benchmarks.connectivity OUT --data data/digits.safetensors` trains the three DAGs of
figure 3 of *Deep Architecture Connectivity Matters for Its Convergence* as the paper does: stem
(linear, ReLU), DAG of three layers of equal width, linear read-out; fan-in Kaiming normal weights,
no biases at the start, ReLU behind every layer, cross-entropy, plain SGD at one constant learning
rate, no augmentation. One rate is small, as the paper's; the others are there to tune it. Every
finished run is a line of OUT/runs.jsonl, and what is there is skipped.

    python -m benchmarks.connectivity OUT --data cifar10.pt --train-images 5000 --epochs 15
    python -m benchmarks.connectivity OUT --report docs/results/connectivity --also OTHER
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.connectivity_report import read_runs, write_report
from benchmarks.images import Images, check_setup, load_images
from benchmarks.timing import surroundings
from tinygrow.connectivity.dag import Dag
from tinygrow.errors import TinygrowError

DAGS = {"#1 sequential": "2_02_002", "#2 parallel": "1_01_222", "#3 mixed": "2_21_112"}
LOOKED_AT = 2000
"""Training images that the loss of an epoch is taken from, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all runs of a folder share."""

    width: int
    epochs: int
    batch_size: int
    train_images: int
    validation_images: int
    test_images: int = 0


class DagNetwork(nn.Module):
    """Stem, a DAG of layers of one width, read-out.

    Args:
        code: of the DAG, as `Dag.from_code` reads it.
        inputs: numbers of an image.
        classes: number of logits.
        width: of every layer.
        seed: of the weights.
    """

    def __init__(self, code: str, inputs: int, classes: int, width: int, seed: int) -> None:
        super().__init__()
        self.dag = Dag.from_code(code)
        layers = [edge for edge in self.dag.edges if edge.depth]
        self.stem = nn.Linear(inputs, width)
        self.layers = nn.ModuleDict(
            {f"{e.source}-{e.target}": nn.Linear(width, width) for e in layers}
        )
        self.head = nn.Linear(width, classes)
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.stem, *self.layers.values(), self.head):
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, ...) to logits (B, classes)."""
        entering: list[list[torch.Tensor]] = [[] for _ in range(self.dag.nodes)]
        entering[0].append(F.relu(self.stem(x.flatten(1))))
        for edge in self.dag.edges:
            y = sum(entering[edge.source][1:], entering[edge.source][0])
            if edge.depth:
                y = F.relu(self.layers[f"{edge.source}-{edge.target}"](y))
            entering[edge.target].append(y)
        return self.head(sum(entering[-1][1:], entering[-1][0]))


def one_run(code: str, rate: float, seed: int, images: Images, setup: Setup) -> dict[str, Any]:
    """Train one network; return its curves, one entry an epoch and one before the first.

    A run whose loss is not finite ends there; its loss is then null.
    """
    inputs, classes = math.prod(images.card.shape), len(images.card.classes)
    network = DagNetwork(code, inputs, classes, setup.width, seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    pixels, labels = next(images.train.batches(len(images.train)))
    generator = torch.Generator().manual_seed(seed)
    started = time.perf_counter()
    curve = [_look(network, images)]
    while len(curve) <= setup.epochs and curve[-1]["loss"] is not None:
        order = torch.randperm(len(labels), generator=generator)
        for batch in order.split(setup.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(network(pixels[batch]), labels[batch]).backward()
            optimizer.step()
        curve.append(_look(network, images))
    return {
        "code": code,
        "learning_rate": rate,
        "seed": seed,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": round(time.perf_counter() - started, 2),
        "curve": curve,
    }


@torch.no_grad()
def _look(network: nn.Module, images: Images) -> dict[str, float | None]:
    """Return training loss and accuracies in percent."""
    found: dict[str, float | None] = {}
    for name, split in (("train", images.train), ("validation", images.validation)):
        x, y = next(split.batches(LOOKED_AT))
        logits = network(x)
        found[f"{name}_accuracy"] = round(100 * float((logits.argmax(1) == y).float().mean()), 3)
        if name == "train":
            loss = float(F.cross_entropy(logits, y))
            found["loss"] = round(loss, 6) if math.isfinite(loss) else None
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, or write the report of what is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.connectivity", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of one data set's runs")
    parser.add_argument("--data", type=Path, help="prepared .safetensors, or a .pt file")
    parser.add_argument("--report", type=Path, help="write table and picture into this folder")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="folders beside OUT")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 0.01, 0.03, 0.1, 0.3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--train-images", type=int, default=1000)
    parser.add_argument("--validation-images", type=int, default=294)
    options = parser.parse_args(arguments)
    if options.report:
        write_report([options.out, *options.also], options.report)
        return 0
    if options.data is None:
        parser.error("--data is missing")
    setup = Setup(
        width=options.width,
        epochs=options.epochs,
        batch_size=options.batch_size,
        train_images=options.train_images,
        validation_images=options.validation_images,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    check_setup(options.out, setup, options.data)
    images = load_images(options.data, setup, torch.device("cpu"))
    around = surroundings(torch.device("cpu"))
    path = options.out / "runs.jsonl"
    done = {(r["code"], r["learning_rate"], r["seed"]) for r in read_runs(path)}
    for seed in options.seeds:
        for rate in options.rates:
            for name, code in DAGS.items():
                if (code, rate, seed) in done:
                    continue
                run = one_run(code, rate, seed, images, setup) | {"around": around}
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run) + "\n")
                last = run["curve"][-1]
                print(f"{name} rate {rate:g} seed {seed}: {last} in {run['seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TinygrowError as error:
        sys.exit(f"Error: {error}")
