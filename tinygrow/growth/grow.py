"""Algorithm 1: visit every site in turn, add the best neurons, train, repeat.

BatchNorm is treated one way throughout: statistics, line search and training see mini-batch
statistics; running statistics serve evaluation alone, and those of new channels are measured
before it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.growth.extend import extend
from tinygrow.growth.log import ExtensionCurves, ExtensionRow
from tinygrow.growth.record import Recorder, row_line
from tinygrow.growth.schedule import Visit, visits
from tinygrow.growth.sites import sites_of
from tinygrow.observer import Observer
from tinygrow.settings.growth import GrowthSettings
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.loop import Trainer

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
            after every extension and its training.

    Raises:
        TinygrowError: the plan does not come out whole, or training diverged.
    """
    observer = observer or Observer()
    sites = sites_of(start)
    plan = list(visits(start.middle_widths, final.middle_widths, settings.extensions))
    trainings = sum(_trains_after(visit, settings) for visit in plan)
    trainer = Trainer(
        network,
        stream,
        settings.training,
        total_epochs=settings.epochs_between * trainings,
        observer=observer,
    )
    log = Recorder(trainer, validation, start)
    generator = torch.Generator().manual_seed(seed)
    log.seed_row()
    architecture = start
    if snapshot is not None:
        snapshot(start, network, log.rows)
    images = round(settings.epochs_between * trainings * len(stream))
    started = time.perf_counter()
    with observer.work("grow", images, "images"):
        for visit in plan:
            site = sites[visit.index]
            count = visit.target - architecture.middle_widths[visit.index]
            extension = None
            if count > 0 and settings.method != "none":
                extension = extend(network, site, count, trainer, settings, generator=generator)
                architecture = architecture.with_middle_width(
                    visit.index, architecture.middle_widths[visit.index] + extension.added
                )
            training = None
            if _trains_after(visit, settings):
                training = trainer.train(settings.epochs_between)
            row = log.add(visit, site, architecture, extension, training)
            observer.say(row_line(row, len(plan)))
            if visit.sweep == 1 and visit.ends_sweep and settings.extensions > 1:
                took = time.perf_counter() - started
                left = took * (settings.extensions - 1)
                observer.say(
                    f"the first of {settings.extensions} sweeps took {took:.0f} s: {left:.0f} s or"
                    " more are left, as the network widens"
                )
            if snapshot is not None:
                snapshot(architecture, trainer.result, log.rows)
    if settings.method != "none" and architecture != final:
        observer.say(
            f"widths are {list(architecture.middle_widths)}, not {list(final.middle_widths)}: there"
            " were fewer directions to add, or none of use; more extensions add fewer at a time"
        )
    return Grown(trainer.result.eval(), architecture, tuple(log.rows), tuple(log.curves))


def _trains_after(visit: Visit, settings: GrowthSettings) -> bool:
    return settings.train_after == "site" or visit.ends_sweep
