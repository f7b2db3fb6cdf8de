"""Algorithm 1: visit every site in turn, add the best neurons, train, repeat.

BatchNorm is treated one way throughout: statistics, line search and training see mini-batch
statistics; running statistics serve evaluation alone, and those of new channels are measured
before it.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.growth.amplitude import Amplitude, choose_amplitude
from tinygrow.growth.bottleneck import best_update, bottleneck
from tinygrow.growth.log import ExtensionCurves, ExtensionRow
from tinygrow.growth.neurons.method import METHODS
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.schedule import Visit, visits
from tinygrow.growth.sites import Site, sites_of
from tinygrow.growth.statistics import update_moments
from tinygrow.growth.surgery import as_units, measure_running_statistics, widen
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.observer import Observer
from tinygrow.settings.growth import GrowthSettings
from tinygrow.training.batches import Batch, DeviceImages, TrainingStream
from tinygrow.training.evaluate import evaluate
from tinygrow.training.loop import Trainer, TrainingSummary

Snapshot = Callable[[int, Architecture, nn.Module], None]


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


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension: what was proposed, with which amplitude, and what it did.

    Attributes:
        site: where.
        proposal: neurons and statistics.
        amplitude: None where there were no neurons to add.
        added: new units.
        bottleneck_after: Psi^2 measured again, where the method measures it.
        seconds_search: wall time.
        seconds_surgery: wall time.
    """

    site: Site
    proposal: Proposal
    amplitude: Amplitude | None = None
    added: int = 0
    bottleneck_after: float | None = None
    seconds_search: float = 0.0
    seconds_surgery: float = 0.0


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
        snapshot: is called with the seed network (0) and after every extension's training.

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
    log = _Log(trainer, validation, start, final.input_shape)
    generator = torch.Generator().manual_seed(seed)
    log.seed_row()
    architecture = start
    if snapshot is not None:
        snapshot(0, start, network)
    images = round(settings.epochs_between * trainings * len(stream))
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
            observer.say(_line(row, len(plan)))
            if snapshot is not None:
                snapshot(row.extension, architecture, trainer.result)
    if settings.method != "none" and architecture != final:
        observer.say(
            f"widths are {list(architecture.middle_widths)}, not {list(final.middle_widths)}: there"
            " were fewer directions to add, or none of use; more extensions add fewer at a time"
        )
    return Grown(trainer.result.eval(), architecture, tuple(log.rows), tuple(log.curves))


def extend(
    network: nn.Module,
    site: Site,
    count: int,
    trainer: Trainer,
    settings: GrowthSettings,
    *,
    generator: torch.Generator,
) -> Extension:
    """Add up to `count` neurons at a site, in place, and tell the trainer (tiny.md 1.13).

    Args:
        network: the trainer's.
        site: where.
        count: neurons wanted.
        trainer: gives images; its optimiser, moving average and batch size follow.
        settings: of growth.
        generator: for random choices.
    """
    stream, statistics = trainer.stream, settings.statistics

    def sample(images: int) -> Sequence[Batch]:
        return stream.sample(images, statistics.batch_size)

    proposal = METHODS[settings.method](
        Request(
            network=network,
            site=site,
            count=count,
            sample=sample,
            available=len(stream),
            settings=settings,
            generator=generator,
        )
    )
    if not len(proposal.neurons.alpha):
        return Extension(site, proposal)

    started = time.perf_counter()
    smoothing = settings.training.label_smoothing
    first, second = site.layers(network)
    images = list(sample(settings.amplitude.images))  # looked at once for each amplitude
    amplitude = choose_amplitude(
        network,
        site,
        as_units(proposal.neurons, first, second),
        images,
        settings.amplitude,
        smoothing,
    )
    seconds_search = time.perf_counter() - started
    if amplitude.units is None:
        return Extension(site, proposal, amplitude, seconds_search=seconds_search)

    started = time.perf_counter()
    before = count_parameters(network)
    added = len(amplitude.units)
    replaced = widen(network, site, amplitude.units)
    measured = (site, added) if amplitude.rejected else None
    measure_running_statistics(network, images, measured)
    trainer.adopt(replaced, settings.optimizer_state)
    if trainer.average is not None:
        widen(trainer.average, site, amplitude.units)
        measure_running_statistics(trainer.average, images, measured)
    if settings.batch_growth == "sqrt_parameters":
        trainer.batch_size *= (count_parameters(network) / before) ** 0.5
    after = None
    if proposal.bottleneck is not None:
        moments = update_moments(network, site, proposal.update_batches, statistics, smoothing)
        delta = best_update(moments.S1, moments.M, settings.solver.relative_cut)
        after = bottleneck(moments.power, moments.M, delta)
    seconds_surgery = time.perf_counter() - started
    return Extension(site, proposal, amplitude, added, after, seconds_search, seconds_surgery)


class _Log:
    """Collects the rows of the growth log."""

    def __init__(
        self,
        trainer: Trainer,
        validation: DeviceImages,
        start: Architecture,
        input_shape: tuple[int, int, int],
    ) -> None:
        self.rows: list[ExtensionRow] = []
        self.curves: list[ExtensionCurves] = []
        self._trainer = trainer
        self._validation = validation
        self._start = start
        self._input_shape = input_shape
        self._statistics_images = 0

    def seed_row(self) -> None:
        """Log the network before anything is done to it."""
        self.rows.append(ExtensionRow(extension=0, sweep=0, **self._state(self._start)))

    def add(
        self,
        visit: Visit,
        site: Site,
        architecture: Architecture,
        extension: Extension | None,
        training: TrainingSummary | None,
    ) -> ExtensionRow:
        """Log one visit."""
        facts = _extension_facts(extension) if extension else {}
        if extension:
            self._statistics_images += extension.proposal.images
        if training:
            facts |= {
                "train_loss": training.loss,
                "train_accuracy": training.accuracy,
                "batch_size": round(self._trainer.batch_size),
                "seconds_training": training.seconds,
            }
        width = architecture.middle_widths[visit.index]
        row = ExtensionRow(
            extension=len(self.rows),
            sweep=visit.sweep,
            depth=site.depth,
            site=site.name,
            width_before=width - (extension.added if extension else 0),
            width_after=width,
            **self._state(architecture),
            **facts,
        )
        self.rows.append(row)
        if extension and extension.amplitude:
            self.curves.append(_curves(row.extension, extension, extension.amplitude))
        return row

    def _state(self, architecture: Architecture) -> dict[str, Any]:
        network = self._trainer.result
        loss, accuracy = evaluate(network, self._validation)
        return {
            "widths": architecture.middle_widths,
            "parameters": count_parameters(network),
            "multiply_adds": count_multiply_adds(network, self._input_shape),
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "epochs": self._trainer.epochs_seen,
            "images_seen": self._trainer.images_seen,
            "statistics_images": self._statistics_images,
        }


def _extension_facts(extension: Extension) -> dict[str, Any]:
    proposal, amplitude = extension.proposal, extension.amplitude
    facts: dict[str, Any] = {
        "bottleneck_before": proposal.bottleneck,
        "bottleneck_after": extension.bottleneck_after,
        "seconds_statistics": proposal.seconds_statistics,
        "seconds_solve": proposal.seconds_solve,
        "seconds_search": extension.seconds_search,
        "seconds_surgery": extension.seconds_surgery,
    }
    spectrum, kept = proposal.neurons.spectrum, len(proposal.neurons.singular_values)
    if len(spectrum):
        power = spectrum.double().square()
        facts |= {
            "largest_singular_value": float(spectrum[0]),
            "singular_values_kept": kept,
            "singular_values_dropped": len(spectrum) - kept,
            "power_kept": float(power[:kept].sum()),
            "power_dropped": float(power[kept:].sum()),
        }
        if proposal.bottleneck is not None:
            facts["bottleneck_predicted"] = proposal.bottleneck - float(power[:kept].sum())
    if amplitude:
        facts |= {
            "sign": amplitude.sign,
            "amplitude": amplitude.factor,
            "rejected": amplitude.rejected,
            "loss_before": amplitude.loss_before,
            "loss_after": amplitude.loss_after,
        }
    return facts


def _curves(number: int, extension: Extension, amplitude: Amplitude) -> ExtensionCurves:
    return ExtensionCurves(
        extension=number,
        depth=extension.site.depth,
        site=extension.site.name,
        singular_values=tuple(extension.proposal.neurons.spectrum.tolist()),
        kept=len(extension.proposal.neurons.singular_values),
        amplitudes=amplitude.amplitudes,
        losses=amplitude.losses,
        chosen=amplitude.factor,
    )


def _trains_after(visit: Visit, settings: GrowthSettings) -> bool:
    return settings.train_after == "site" or visit.ends_sweep


def _line(row: ExtensionRow, total: int) -> str:
    """Return one line on an extension, for terminals without a bar."""
    growth = f"{row.width_before} -> {row.width_after}"
    search = ""
    if row.loss_before is not None and row.loss_after is not None:
        search = (
            f" loss {row.loss_before:.4f} -> {row.loss_after:.4f}"
            f" (amplitude {row.amplitude:.3g}{', rejected' if row.rejected else ''})"
        )
    trained = row.train_loss is not None and not math.isnan(row.train_loss)
    train = f" train loss {row.train_loss:.3f}" if trained else ""
    return (
        f"extension {row.extension}/{total} depth {row.depth} width {growth}{search}{train}"
        f" validation {row.validation_accuracy:.2f} % parameters {row.parameters:,}"
    )
