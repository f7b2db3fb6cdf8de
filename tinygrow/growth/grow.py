"""Algorithm 1: ask the plan for a site, add the best neurons there, train, repeat.

BatchNorm is treated one way throughout: statistics, line search and training see mini-batch
statistics; running statistics serve evaluation alone, and those of new channels are measured
before it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.distributed import of_first
from tinygrow.growth.extend import extend
from tinygrow.growth.log import ExtensionCurves, ExtensionRow
from tinygrow.growth.plan.facts import progress_of
from tinygrow.growth.plan.measured import Measured
from tinygrow.growth.plan.plan import End, Plan, TrainOn
from tinygrow.growth.record import ExtensionFacts, Recorder, facts_of, facts_of_choice, row_line
from tinygrow.growth.schedule import Visit, check_plan
from tinygrow.growth.sites import sites_of
from tinygrow.networks.build import build_network
from tinygrow.observer import Observer
from tinygrow.settings.growth import GrowthSettings
from tinygrow.state.keeper import Keeper
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.loop import Trainer, TrainingSummary

Snapshot = Callable[[Architecture, nn.Module, Sequence[ExtensionRow]], None]


@dataclass(frozen=True, slots=True)
class Grown:
    """What growth leaves behind.

    Attributes:
        network: the network to keep, in evaluation mode.
        architecture: rebuilds it.
        rows: the growth log; row 0 is the seed network.
        curves: spectra and line searches.
        ended: why growth stopped.
    """

    network: nn.Module
    architecture: Architecture
    rows: tuple[ExtensionRow, ...]
    curves: tuple[ExtensionCurves, ...]
    ended: str = ""


def grow(
    network: nn.Module,
    start: Architecture,
    final: Architecture,
    stream: TrainingStream,
    validation: DeviceImages,
    settings: GrowthSettings,
    *,
    seed: int = 0,
    observer: Observer | None = None,
    snapshot: Snapshot | None = None,
    keeper: Keeper | None = None,
) -> Grown:
    """Grow `network` from `start` to `final` (Algorithm 1; tiny.md 1.12, 1.13).

    Args:
        network: built from `start`, on the stream's device; changed in place.
        start: its architecture.
        final: the widths to reach, never exceeded.
        stream: training images, for statistics, line search and training.
        validation: for the log; it decides nothing but the end where
            `until.validation_accuracy` is set.
        settings: every choice of growth.
        seed: of the method's own random choices.
        observer: is told of extensions and training steps.
        snapshot: is called with architecture, network and log so far: for the seed network, and
            after every extension and its training. A run that goes on from a state may call it
            again for what came after that state.
        keeper: keeps the state, from which an interrupted run goes on; `network` is then replaced
            by one of the state's widths.

    Raises:
        TinygrowError: the plan does not come out whole, or training diverged.
    """
    growth = _Growth(
        network,
        start,
        final,
        stream,
        validation,
        settings,
        seed=seed,
        observer=observer or Observer(),
        snapshot=snapshot,
        keeper=keeper or Keeper(),
    )
    growth.run()
    return growth.result()


def done_so_far(state: dict[str, Any]) -> tuple[int, int]:
    """Return the extensions that are made and the image passes of training, by a growth's state."""
    visits_over = sum(row["site"] is not None for row in state["log"]["rows"])
    return visits_over + bool(state["step"]), int(state["trainer"]["images_seen"])


class _Growth:
    """A growth under way. Everything that changes in it is in its state."""

    def __init__(
        self,
        network: nn.Module,
        start: Architecture,
        final: Architecture,
        stream: TrainingStream,
        validation: DeviceImages,
        settings: GrowthSettings,
        *,
        seed: int,
        observer: Observer,
        snapshot: Snapshot | None,
        keeper: Keeper,
    ) -> None:
        self.final = final
        self.settings = settings
        self.observer = observer
        self.snapshot = snapshot
        self.keeper = keeper
        self.sites = sites_of(start)
        check_plan(start, final, settings)
        self.plan = Plan(start.middle_widths, final.middle_widths, settings)
        self.trainer = Trainer(
            network,
            stream,
            settings.training,
            total_epochs=settings.epochs_between * self.plan.trainings,
            observer=observer,
        )
        self.trainer.after_step = lambda: keeper.step(self.state)
        self.log = Recorder(self.trainer, validation, start)
        self.generator = torch.Generator().manual_seed(seed)
        self.architecture = start
        self.step: Visit | TrainOn | None = None  # the one under way, its neurons added
        self.extension: ExtensionFacts | None = None
        self.training: TrainingSummary | None = None
        self.ended = ""

    def run(self) -> None:
        """Follow the plan to its end."""
        kept = self.keeper.restore()
        if kept is not None:
            self.restore(kept)
        images = round(self.trainer.total_epochs * len(self.trainer.stream))
        if self.settings.open_ended:
            self.observer.say(
                f"how long growth goes on is decided on the way: {self.trainer.total_epochs:g}"
                " epochs are the most, by which progress and the learning rate are reckoned"
            )
        with self.observer.work("grow", images, "images"):
            self.observer.advance(self.trainer.images_seen)
            if not self.log.rows:
                with self.keeper.held(self.state):
                    self.log.seed_row()
                    self._take_snapshot()
            while not self.ended:
                if self.step is None:
                    with self.keeper.held(self.state):
                        self._extend()
                if self.step is not None:
                    self._train_and_log(self.step)
            self.keeper.done(self.state)
        self._say_end()

    def _extend(self) -> None:
        """Ask the plan, and add the neurons that it wants."""
        started, widths = time.perf_counter(), self.architecture.middle_widths
        network, stream = self.trainer.network, self.trainer.stream
        measured = Measured(
            network, self.sites, widths, stream, self.architecture.input_shape, self.settings
        )
        # What is decided is the first process's.
        step = of_first(self.plan.next(progress_of(self.log.rows, self.sites, widths), measured))
        if isinstance(step, End):
            self.ended = step.reason
            return
        self.step = step
        if self.settings.open_ended:
            self.extension = facts_of_choice(measured.images, time.perf_counter() - started)
        if isinstance(step, TrainOn) or self.settings.method == "none":
            return
        count = step.target - widths[step.index]
        if count > 0:
            extension = extend(
                network,
                self.sites[step.index],
                count,
                self.trainer,
                self.settings,
                generator=self.generator,
            )
            self.extension = facts_of(extension, self.extension)
            width = widths[step.index] + extension.added
            self.architecture = self.architecture.with_middle_width(step.index, width)

    def _train_and_log(self, step: Visit | TrainOn) -> None:
        if self.plan.trains_after(step) and self.training is None:
            self.training = self.trainer.train(self.settings.epochs_between)
        visit = step if isinstance(step, Visit) else None
        site = self.sites[visit.index] if visit else None
        with self.keeper.held(self.state):
            row = self.log.add(visit, site, self.architecture, self.extension, self.training)
            self._take_snapshot()
        self.step, self.extension, self.training = None, None, None
        self.observer.say(row_line(row, self.plan.length))
        if visit and visit.sweep == 1 and visit.ends_sweep:
            self._say_rest()

    def result(self) -> Grown:
        """Return what growth has come to."""
        return Grown(
            self.trainer.result.eval(),
            self.architecture,
            tuple(self.log.rows),
            tuple(self.log.curves),
            self.ended,
        )

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the growth hangs on."""
        epochs = f"{self.trainer.epochs_seen:.2f} of {self.trainer.total_epochs:g} epochs"
        progress = f"extension {len(self.log.rows)} of {self.plan.length}, {epochs}"
        return {
            "progress": "the end" if self.ended else progress,
            "architecture": self.architecture.to_dict(),
            "trainer": self.trainer.state(),
            "generator": self.generator.get_state(),
            "log": self.log.state(),
            "ended": self.ended,
            "step": None if self.step is None else asdict(self.step),
            "extension": None if self.extension is None else asdict(self.extension),
            "training": None if self.training is None else asdict(self.training),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        self.architecture = Architecture.from_dict(state["architecture"])
        network = build_network(self.architecture).to(self.trainer.stream.images.device)
        self.trainer.restore(state["trainer"], network)
        self.generator.set_state(state["generator"])
        self.log.restore(state["log"])
        self.ended = state["ended"]
        kept = state["step"]
        self.step = None if kept is None else Visit(**kept) if kept else TrainOn()
        kept = state["extension"]
        self.extension = None if kept is None else ExtensionFacts(**kept)
        kept = state["training"]
        self.training = None if kept is None else TrainingSummary(**kept)

    def _take_snapshot(self) -> None:
        if self.snapshot is not None:
            self.snapshot(self.architecture, self.trainer.result, self.log.rows)

    def _say_end(self) -> None:
        self.observer.say(f"growth ends: {self.ended}")
        open_ended = self.settings.open_ended or self.settings.method == "none"
        if not open_ended and self.architecture != self.final:
            self.observer.say(
                f"widths are {list(self.architecture.middle_widths)}, not"
                f" {list(self.final.middle_widths)}: there were fewer directions to add, or none of"
                " use; more extensions add fewer at a time"
            )

    def _say_rest(self) -> None:
        """Tell what the first sweep really took, against which the estimate may be held."""
        if self.settings.extensions == 1 or self.settings.open_ended:
            return
        took = sum(row.seconds for row in self.log.rows)
        left = took * (self.settings.extensions - 1)
        self.observer.say(
            f"the first of {self.settings.extensions} sweeps took {took:.0f} s: {left:.0f} s or"
            " more are left, as the network widens"
        )
