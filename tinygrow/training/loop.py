"""The trainer: steps on a network that may change its shape between two calls."""

import copy
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.batches import TrainingStream
from tinygrow.training.optimizer import (
    Replacement,
    learning_rate,
    make_optimizer,
    pad_optimizer,
)


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """What one call of `Trainer.train` did.

    Attributes:
        loss: mean training loss of the steps (with label smoothing, if set).
        accuracy: percent of the augmented training images named right before their step.
        images: image passes.
        seconds: wall time.
        learning_rate: at the last step.
    """

    loss: float
    accuracy: float
    images: int
    seconds: float
    learning_rate: float


class Trainer:
    """Trains a network for fractions of epochs; growth changes the network in between.

    BatchNorm is in training mode here; `evaluate` uses its running statistics.

    Args:
        network: on the stream's device; trained in place.
        stream: endless augmented batches.
        settings: the recipe.
        total_epochs: length of the whole plan, for the schedule.
        observer: is told of every step.
    """

    def __init__(
        self,
        network: nn.Module,
        stream: TrainingStream,
        settings: TrainingSettings,
        *,
        total_epochs: float,
        observer: Observer | None = None,
    ) -> None:
        self.network = network
        self.stream = stream
        self.settings = settings
        self.total_epochs = total_epochs
        self.observer = observer or Observer()
        self.batch_size = float(settings.batch_size)
        self.images_seen = 0
        self.optimizer = make_optimizer(network, settings)
        self.average = copy.deepcopy(network) if settings.ema else None
        self._images_due = 0.0

    @property
    def epochs_seen(self) -> float:
        """Image passes so far, in units of the training set."""
        return self.images_seen / len(self.stream)

    @property
    def result(self) -> nn.Module:
        """The network to evaluate and keep: the moving average where there is one."""
        return self.average if self.average is not None else self.network

    def train(self, epochs: float) -> TrainingSummary:
        """Train for `epochs` passes; what a whole number of steps over- or undershoots is carried.

        Raises:
            TinygrowError: the loss is no longer finite.
        """
        started = time.perf_counter()
        device = self.stream.images.device
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        images, rate = 0, learning_rate(self.settings, self.epochs_seen, self.total_epochs)
        size = min(round(self.batch_size), len(self.stream))
        self._images_due += epochs * len(self.stream)
        self.network.train()
        while self._images_due > 0.5 * size:
            rate = learning_rate(self.settings, self.epochs_seen, self.total_epochs)
            loss, hits = self._step(size, rate)
            loss_sum += loss.double() * size
            correct += hits
            images += size
            self.images_seen += size
            self._images_due -= size
            self.observer.advance(size)
        mean = float(loss_sum) / max(images, 1)
        if not math.isfinite(mean):
            raise TinygrowError(
                f"training diverged: the loss is {mean} after {self.epochs_seen:.2f} epochs;"
                f" lower learning_rate (it is {self.settings.learning_rate:g})"
            )
        return TrainingSummary(
            loss=mean if images else math.nan,
            accuracy=100.0 * float(correct) / images if images else math.nan,
            images=images,
            seconds=time.perf_counter() - started,
            learning_rate=rate,
        )

    def adopt(self, replacements: Iterable[Replacement], state: str) -> None:
        """Take over parameters that surgery replaced.

        Args:
            replacements: of the trained network's parameters (not of its moving average).
            state: `recreate` starts the optimiser afresh; `pad` keeps its state.
        """
        if state == "pad":
            pad_optimizer(self.optimizer, replacements)
        else:
            self.optimizer = make_optimizer(self.network, self.settings)

    def _step(self, size: int, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = self.stream.next(size)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(
            images.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"
        ):
            logits = self.network(images)
        loss = F.cross_entropy(
            logits.float(), labels, label_smoothing=self.settings.label_smoothing
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.average is not None:
            _update_average(self.average, self.network, self.settings.ema)
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's weights by 1 - decay towards the network's; buffers are copied."""
    for kept, current in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(current, 1.0 - decay)
    for old, new in zip(average.buffers(), network.buffers(), strict=True):
        old.copy_(new)
