"""Algorithm 1: visit every site in turn, add the best neurons, train, repeat.

BatchNorm is treated one way throughout: statistics, line search and training see mini-batch
statistics; running statistics serve evaluation alone, and those of new channels are measured
before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.growth.extend import extend
from tinygrow.growth.log import ExtensionCurves, ExtensionRow
from tinygrow.growth.record import ExtensionFacts, Recorder, facts_of, row_line
from tinygrow.growth.schedule import Visit, check_plan, visits
from tinygrow.growth.sites import Site, sites_of
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
    """

    network: nn.Module
    architecture: Architecture
    rows: tuple[ExtensionRow, ...]
    curves: tuple[ExtensionCurves, ...]


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
        final: the widths to reach.
        stream: training images, for statistics, line search and training.
        validation: for the log alone; nothing is decided by it.
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
    visits_over = max(0, len(state["log"]["rows"]) - 1)
    return visits_over + bool(state["extended"]), int(state["trainer"]["images_seen"])


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
        check_plan(start, final, settings.extensions)
        self.plan = list(visits(start.middle_widths, final.middle_widths, settings.extensions))
        trainings = sum(_trains_after(visit, settings) for visit in self.plan)
        self.trainer = Trainer(
            network,
            stream,
            settings.training,
            total_epochs=settings.epochs_between * trainings,
            observer=observer,
        )
        self.trainer.after_step = lambda: keeper.step(self.state)
        self.log = Recorder(self.trainer, validation, start)
        self.generator = torch.Generator().manual_seed(seed)
        self.architecture = start
        self.extended = False  # whether the current visit has added its neurons
        self.extension: ExtensionFacts | None = None
        self.training: TrainingSummary | None = None

    def run(self) -> None:
        """Go through the rest of the plan."""
        kept = self.keeper.restore()
        if kept is not None:
            self.restore(kept)
        images = round(self.trainer.total_epochs * len(self.trainer.stream))
        with self.observer.work("grow", images, "images"):
            self.observer.advance(self.trainer.images_seen)
            if not self.log.rows:
                with self.keeper.held(self.state):
                    self.log.seed_row()
                    self._take_snapshot()
            # The log has a row for the seed and one for each visit that is over.
            while len(self.log.rows) <= len(self.plan):
                self._visit(self.plan[len(self.log.rows) - 1])
            self.keeper.done(self.state)
        if self.settings.method != "none" and self.architecture != self.final:
            self.observer.say(
                f"widths are {list(self.architecture.middle_widths)}, not"
                f" {list(self.final.middle_widths)}: there were fewer directions to add, or none of"
                " use; more extensions add fewer at a time"
            )

    def result(self) -> Grown:
        """Return what growth has come to."""
        return Grown(
            self.trainer.result.eval(),
            self.architecture,
            tuple(self.log.rows),
            tuple(self.log.curves),
        )

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the growth hangs on."""
        over, total = len(self.log.rows), len(self.plan)
        epochs = f"{self.trainer.epochs_seen:.2f} of {self.trainer.total_epochs:g} epochs"
        return {
            "progress": f"extension {over} of {total}, {epochs}" if over <= total else "the end",
            "architecture": self.architecture.to_dict(),
            "trainer": self.trainer.state(),
            "generator": self.generator.get_state(),
            "log": self.log.state(),
            "extended": self.extended,
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
        self.extended = state["extended"]
        kept = state["extension"]
        self.extension = None if kept is None else ExtensionFacts(**kept)
        kept = state["training"]
        self.training = None if kept is None else TrainingSummary(**kept)

    def _visit(self, visit: Visit) -> None:
        site = self.sites[visit.index]
        if not self.extended:
            with self.keeper.held(self.state):
                self._extend(visit, site)
            self.extended = True
        if _trains_after(visit, self.settings) and self.training is None:
            self.training = self.trainer.train(self.settings.epochs_between)
        with self.keeper.held(self.state):
            row = self.log.add(visit, site, self.architecture, self.extension, self.training)
            self._take_snapshot()
        self.extended, self.extension, self.training = False, None, None
        self.observer.say(row_line(row, len(self.plan)))
        if visit.sweep == 1 and visit.ends_sweep and self.settings.extensions > 1:
            self._say_rest()

    def _extend(self, visit: Visit, site: Site) -> None:
        width = self.architecture.middle_widths[visit.index]
        if visit.target <= width or self.settings.method == "none":
            return
        extension = extend(
            self.trainer.network,
            site,
            visit.target - width,
            self.trainer,
            self.settings,
            generator=self.generator,
        )
        self.extension = facts_of(extension)
        self.architecture = self.architecture.with_middle_width(
            visit.index, width + extension.added
        )

    def _take_snapshot(self) -> None:
        if self.snapshot is not None:
            self.snapshot(self.architecture, self.trainer.result, self.log.rows)

    def _say_rest(self) -> None:
        """Tell what the first sweep really took, against which the estimate may be held."""
        took = sum(row.seconds for row in self.log.rows)
        left = took * (self.settings.extensions - 1)
        self.observer.say(
            f"the first of {self.settings.extensions} sweeps took {took:.0f} s: {left:.0f} s or"
            " more are left, as the network widens"
        )


def _trains_after(visit: Visit, settings: GrowthSettings) -> bool:
    return settings.train_after == "site" or visit.ends_sweep
