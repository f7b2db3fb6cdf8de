"""One extension of a site: propose, choose the amplitude, widen (tiny.md 1.13)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from tinygrow.growth.amplitude import Amplitude, choose_amplitude
from tinygrow.growth.bottleneck import best_update, bottleneck
from tinygrow.growth.neurons.method import METHODS
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.passes import refine_further
from tinygrow.growth.refine import refined
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import update_moments
from tinygrow.growth.surgery import NewUnits, measure_running_statistics, widen
from tinygrow.networks.cost import count_parameters
from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings
from tinygrow.training.batches import Batch
from tinygrow.training.loop import Trainer


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


def propose(request: Request) -> tuple[Proposal, NewUnits | None, AmplitudeSettings]:
    """Let the method propose, and refine what it proposes.

    Args:
        request: how many neurons, and where.

    Returns:
        The method's proposal; the units, but for their amplitude, or None where there are none; and
        how the amplitude is to be searched.
    """
    settings = request.settings
    more = replace(request, count=request.count * settings.refinement.candidates)
    proposal = METHODS[settings.method](more)
    if not len(proposal.neurons.alpha):
        return proposal, None, settings.amplitude
    started = time.perf_counter()
    units, amplitude = refined(request, proposal)
    seconds = proposal.seconds_solve + time.perf_counter() - started
    return replace(proposal, seconds_solve=seconds), units if len(units) else None, amplitude


def search(
    request: Request,
    proposal: Proposal,
    units: NewUnits,
    images: Sequence[Batch],
    settings: AmplitudeSettings,
) -> Amplitude:
    """Choose the amplitude of the units, and refine them further where the settings say so.

    Args:
        request: where.
        proposal: its images of the best update serve further passes.
        units: from `propose`.
        images: of the search.
        settings: of the amplitude, from `propose`.
    """
    refinement = request.settings.refinement
    smoothing = request.settings.training.label_smoothing
    amplitude = choose_amplitude(request.network, request.site, units, images, settings, smoothing)
    if amplitude.units is None or amplitude.rejected or not refinement.passes:
        return amplitude
    estimate = proposal.update_batches or request.sample(request.settings.statistics.min_images)
    passed = refine_further(
        request.network, request.site, amplitude.units, estimate, images, refinement, smoothing
    )
    return replace(amplitude, units=passed.units, refined_loss=passed.loss)


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

    request = Request(
        network=network,
        site=site,
        count=count,
        sample=sample,
        available=len(stream),
        settings=settings,
        generator=generator,
    )
    proposal, units, amplitude_settings = propose(request)
    if units is None:
        return Extension(site, proposal)

    started = time.perf_counter()
    smoothing = settings.training.label_smoothing
    images = list(sample(settings.amplitude.images))  # looked at once for each amplitude
    amplitude = search(request, proposal, units, images, amplitude_settings)
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
