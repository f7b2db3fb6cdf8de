"""What one process and several do alike, for tests to compare."""

from dataclasses import replace
from functools import partial
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import nn

from tests.growth.scenes import patterns, perceptron, quick_settings, resnet, stream
from tinygrow.distributed import add_up, of_first, once, processes, share
from tinygrow.growth.bottleneck import best_update, optimal_neurons
from tinygrow.growth.grow import grow
from tinygrow.growth.sites import sites_of
from tinygrow.growth.statistics import neuron_moments, update_moments
from tinygrow.growth.surgery import measure_running_statistics
from tinygrow.networks.build import build_network
from tinygrow.settings.growth import SolverSettings, StatisticsSettings
from tinygrow.settings.training import FinetuneSettings, InducementSettings, TrainingSettings
from tinygrow.training.evaluate import evaluate
from tinygrow.training.finetune import finetune
from tinygrow.training.loop import Trainer

UNEVEN = TrainingSettings(batch_size=15, learning_rate=0.05, momentum=0.9)
# With the default cut of 1e-6 the inverse roots of S magnify float32's rounding to 1e-4.
MLP: dict[str, Any] = {"solver": SolverSettings(relative_cut=1e-3)}
ADAM: dict[str, Any] = {
    "optimizer_state": "pad",
    "training": TrainingSettings(optimizer="adamw", batch_size=15, learning_rate=0.01, ema=0.5),
}


def neurons(images: int) -> dict[str, Any]:
    """Moments and neurons of a residual network with BatchNorm, on batches of 16 images."""
    network, start = resnet()
    site = sites_of(start)[0]
    batches = stream(seed=3).sample(images, 16)
    settings = StatisticsSettings(dtype="float32")
    update = update_moments(network, site, batches, settings)
    delta = once(best_update, update.S1, update.M, 1e-6)
    pair = neuron_moments(network, site, batches, delta, settings)
    found = once(optimal_neurons, pair.S, pair.N, 2, 1e-6)
    measure_running_statistics(network, batches)
    return {
        "images": [update.images, pair.images],
        "power": update.power,
        "S": pair.S,
        "product": found.alpha.double().T @ found.omega.double(),
        "running": [b.clone() for b in network.buffers() if b.is_floating_point()],
        "evaluated": evaluate(network, patterns(30, seed=2), batch_size=8),
    }


def growth(kind: str, **changes: Any) -> dict[str, Any]:
    """The whole of a tiny growth."""
    network, start = resnet() if kind == "resnet" else perceptron((1, 2))
    grown = grow(
        network,
        start,
        replace(start, middle_widths=(4, 5)),
        stream(seed=3),
        patterns(30, seed=2),
        quick_settings(**changes),
        seed=7,
    )
    return {
        "weights": dict(grown.network.state_dict()),
        "losses": [curve.losses for curve in grown.curves],
        "rows": [(r.train_loss, r.train_accuracy, r.validation_loss) for r in grown.rows],
    }


def finetuning(compile: Literal["on", "off"] = "off") -> dict[str, Any]:
    """Two epochs of a perceptron, in batches that two processes cannot halve."""
    network, _ = perceptron((3, 4))
    settings = FinetuneSettings(
        epochs=2,
        max_epochs=0,
        evaluate_every=1,
        compile=compile,
        stability=InducementSettings(l1_weights=0.05, rs_loss=0.1),
        training=UNEVEN,
    )
    done = finetune(network, stream(seed=3), patterns(30, seed=2), settings)
    return {
        "weights": dict(done.network.state_dict()),
        "rows": [(r.train_loss, r.train_accuracy, r.validation_loss) for r in done.rows],
    }


def compiled() -> dict[str, Any]:
    """The same by compiled steps: as far as operators, of which no C++ is made."""
    quick = partial(torch.compile, backend="aot_eager")
    with patch.object(torch, "compile", quick):
        return finetuning("on")


def dropped() -> torch.Tensor:
    """Which of 64 numbers dropout lets through in two steps of training; same images for all."""

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build_network(perceptron((3, 4))[1], seed=0)
            self.drop = nn.Dropout(0.5)
            self.seen: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.append(self.drop(torch.ones(64)))
            return self.inner(x)

    network = Watched()
    trainer = Trainer(network, stream(), UNEVEN, total_epochs=1.0)
    trainer.train(30 / 96)
    return torch.stack(network.seen)


def everything() -> dict[str, Any]:
    """All of the above, and the small parts of `tinygrow.distributed` by themselves."""
    rank = processes().rank
    return {
        "group": (rank, processes().count),
        "shares": [list(share(range(5))), list(share(iter("abc"))), list(share([]))],
        "parts": [list(range(size))[processes().part(size)] for size in (7, 2)],
        "sum": add_up(torch.tensor([1.0 + rank, 10.0])).tolist(),
        "first": of_first({"rank": rank, "list": [torch.full((2,), float(rank))]}),
        "once": once(lambda x: (x, rank), 5),
        "neurons": neurons(72),
        "one batch": neurons(16),
        "mlp": growth("mlp", **MLP),
        "adam": growth("mlp", **ADAM),
        "random": growth("mlp", method="random"),
        "resnet": growth("resnet", training=replace(UNEVEN, ema=0.5)),
        "finetuning": finetuning(),
        "compiled": compiled(),
        "dropped": dropped(),
    }
