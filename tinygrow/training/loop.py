"""The trainer: steps on a network that may change its shape between two calls."""

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.distributed import add_up, processes
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.settings.training import InducementSettings, TrainingSettings
from tinygrow.state.values import copied, load_weights
from tinygrow.training.batches import TrainingStream
from tinygrow.training.compiled import compiled
from tinygrow.training.optimizer import (
    Replacement,
    learning_rate,
    make_optimizer,
    pad_optimizer,
)
from tinygrow.training.parallel import draw_apart, in_parallel, same_buffers
from tinygrow.training.precision import is_coarse
from tinygrow.training.proximal import copy_zeros, shrink
from tinygrow.training.rs_loss import RSLoss


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


@dataclass(slots=True)
class _Run:
    """A call of `train` under way; part of the state, so that its figures are of all of it."""

    loss_sum: torch.Tensor
    correct: torch.Tensor
    learning_rate: float
    images: int = 0
    seconds: float = 0.0


class Trainer:
    """Trains a network for fractions of epochs; growth changes the network in between.

    BatchNorm is in training mode here; `evaluate` uses its running statistics. `after_step` is
    called after each step: there, and between calls of `train`, `state` may be taken.

    Several processes (`tinygrow.distributed`) take a part of each mini-batch, and move by the mean
    gradient over all of its images. The first one's state is all that is needed to go on.

    `described` says in which precision the last call of `train` took its steps, and whether they
    were compiled.

    Args:
        network: on the stream's device; trained in place.
        stream: endless augmented batches.
        settings: the recipe.
        total_epochs: length of the whole plan, for the schedule.
        observer: is told of every step.
        compile: steps by torch.compile (`tinygrow.training.compiled`); not for a network that
            grows, each width of which would be compiled by itself.
        inducement: penalties that make units stable. Losses that are told are without them.
    """

    def __init__(
        self,
        network: nn.Module,
        stream: TrainingStream,
        settings: TrainingSettings,
        *,
        total_epochs: float,
        observer: Observer | None = None,
        compile: Literal["off", "on", "auto"] = "off",
        inducement: InducementSettings | None = None,
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
        self.after_step: Callable[[], None] = lambda: None
        self.inducement = inducement or InducementSettings()
        self._rs_loss: RSLoss | None = None
        self._compile = compile
        self._called: nn.Module | None = None  # by steps: the network, or compiled from it
        self.described = ""
        self._images_due = 0.0
        self._run: _Run | None = None

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

        After `restore` from a state that was taken within a call, this goes on with that call.

        Raises:
            TinygrowError: the loss is no longer finite.
        """
        if self._run is None:
            self._run = self._fresh_run()
            self._images_due += epochs * len(self.stream)
        run = self._run
        started = time.perf_counter() - run.seconds
        size = min(round(self.batch_size), len(self.stream))
        if size < processes().count:
            raise TinygrowError(
                f"a batch of {size} images is too small for {processes().count} processes; raise"
                " batch_size or lower processes"
            )
        self.network.train()
        device = self.stream.images.device
        coarse = is_coarse(self.settings.precision, self.network, device)
        if self._called is None:
            self._called = compiled(self.network, device, self._compile, self.observer.say)
        if self.inducement.rs_loss and self._rs_loss is None:
            self._rs_loss = RSLoss(self.network, *self.stream.images.box())
        how = "as it is" if self._called is self.network else "compiled"
        self.described = f"{'bfloat16' if coarse else 'float32'}, {how}"
        with in_parallel(self._called) as called:
            while self._images_due > 0.5 * size:
                rate = learning_rate(self.settings, self.epochs_seen, self.total_epochs)
                loss, hits = self._step(called, size, rate, coarse)
                run.learning_rate = rate
                run.loss_sum += loss.double() * size
                run.correct += hits
                run.images += size
                self.images_seen += size
                self._images_due -= size
                run.seconds = time.perf_counter() - started
                self.observer.advance(size)
                self.after_step()
        same_buffers(self.network, self.average)
        mean = float(run.loss_sum) / max(run.images, 1)  # waits for a GPU to finish
        if not math.isfinite(mean):
            raise TinygrowError(
                f"training diverged: the loss is {mean} after {self.epochs_seen:.2f} epochs;"
                f" lower learning_rate (it is {self.settings.learning_rate:g})"
            )
        self._run = None
        return TrainingSummary(
            loss=mean if run.images else math.nan,
            accuracy=100.0 * float(run.correct) / run.images if run.images else math.nan,
            images=run.images,
            seconds=time.perf_counter() - started,
            learning_rate=run.learning_rate,
        )

    def state(self) -> dict[str, Any]:
        """Return all that later steps hang on, as tensors on the CPU and plain values."""
        run = self._run
        return {
            "network": copied(dict(self.network.state_dict())),
            "average": None if self.average is None else copied(dict(self.average.state_dict())),
            "optimizer": copied(self.optimizer.state_dict()),
            "stream": self.stream.state(),
            "torch": _torch_generators(self.stream.images.device),
            "batch_size": self.batch_size,
            "images_seen": self.images_seen,
            "images_due": self._images_due,
            "run": None
            if run is None
            else {
                "loss_sum": copied(run.loss_sum),
                "correct": copied(run.correct),
                "learning_rate": run.learning_rate,
                "images": run.images,
                "seconds": run.seconds,
            },
        }

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Go on from a state.

        Args:
            state: of a trainer with the same settings and images.
            network: of the shape that the state's weights have; takes them over.
        """
        load_weights(network, state["network"])
        self.network, self._called, self._rs_loss = network, None, None
        if state["average"] is not None:
            self.average = copy.deepcopy(network)
            load_weights(self.average, state["average"])
        self.optimizer = make_optimizer(network, self.settings)
        self.optimizer.load_state_dict(copied(state["optimizer"]))
        self.stream.restore(state["stream"])
        _restore_torch_generators(state["torch"], self.stream.images.device)
        self.batch_size = state["batch_size"]
        self.images_seen = state["images_seen"]
        self._images_due = state["images_due"]
        self._run = None
        if state["run"] is not None:
            self._run = self._fresh_run()
            self._run.loss_sum += state["run"]["loss_sum"].to(self._run.loss_sum.device)
            self._run.correct += state["run"]["correct"].to(self._run.correct.device)
            self._run.learning_rate = state["run"]["learning_rate"]
            self._run.images = state["run"]["images"]
            self._run.seconds = state["run"]["seconds"]

    def _fresh_run(self) -> _Run:
        device = self.stream.images.device
        return _Run(
            loss_sum=torch.zeros((), dtype=torch.float64, device=device),
            correct=torch.zeros((), dtype=torch.int64, device=device),
            learning_rate=learning_rate(self.settings, self.epochs_seen, self.total_epochs),
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

    def _step(
        self, network: nn.Module, size: int, rate: float, coarse: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move once; return mean loss and hits of the batch, of all processes together."""
        together = processes()
        if together.count > 1:
            draw_apart(together.rank, self.stream.generator.initial_seed(), self.images_seen)
        images, labels = self.stream.next(size, together.part(size))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(images.device.type, torch.bfloat16, enabled=coarse):
            logits = network(images)
        loss = F.cross_entropy(
            logits.float(), labels, label_smoothing=self.settings.label_smoothing
        )
        if together.count > 1:  # so that the mean over processes is that over images
            loss = loss * (together.count * len(labels) / size)
        self.optimizer.zero_grad(set_to_none=True)
        objective = loss
        if self._rs_loss is not None:
            objective = loss + self.inducement.rs_loss * self._rs_loss()
        objective.backward()
        self.optimizer.step()
        shrink(self.network, self.inducement, rate)
        if self.average is not None:
            _update_average(self.average, self.network, self.settings.ema)
            copy_zeros(self.network, self.average, self.inducement)
        hits = (logits.detach().argmax(1) == labels).sum()
        if together.count == 1:
            return loss.detach(), hits
        both = add_up(torch.stack([loss.detach().double() / together.count, hits.double()]))
        return both[0], both[1].long()


def _torch_generators(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of PyTorch's own generators, which layers such as dropout draw from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_torch_generators(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's weights by 1 - decay towards the network's; buffers are copied."""
    # One call for all of them: on a GPU a step waits for the launching of many small ones.
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1.0 - decay)
    buffers = zip(average.buffers(), network.buffers(), strict=True)
    for _, pairs in groupby(sorted(buffers, key=_kind), key=_kind):
        old, new = zip(*pairs, strict=True)
        torch._foreach_copy_(old, new)


def _kind(pair: tuple[torch.Tensor, torch.Tensor]) -> str:
    return str(pair[0].dtype)
