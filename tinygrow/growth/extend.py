"""One extension of a site: propose, choose the amplitude, widen (tiny.md 1.13)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from tinygrow.distributed import of_first, once
from tinygrow.growth.amplitude import Amplitude, choose_amplitude, settled_amplitude
from tinygrow.growth.bottleneck import best_update, bottleneck
from tinygrow.growth.neurons.method import METHODS, SETTLED
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.passes import refine_further
from tinygrow.growth.refine import refined
from tinygrow.growth.schedule import whole
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import update_moments
from tinygrow.growth.surgery import NewUnits, measure_running_statistics, widen
from tinygrow.networks.cost import count_parameters
from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings
from tinygrow.training.batches import Batch
from tinygrow.training.loop import Trainer
from tinygrow.training.optimizer import Replacement


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension: what was proposed, with which amplitude, and what it did.

    Attributes:
        site: where.
        proposal: neurons and statistics.
        amplitude: None where there were no neurons to add.
        added: new units.
        bottleneck_after: Psi^2 measured again, where the method measures it.
        replaced: parameters of the network that gave way to wider ones.
        seconds_search: wall time.
        seconds_surgery: wall time.
    """

    site: Site
    proposal: Proposal
    amplitude: Amplitude | None = None
    added: int = 0
    bottleneck_after: float | None = None
    replaced: tuple[Replacement, ...] = ()
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
    settings, method = request.settings, request.settings.method
    if method in SETTLED:
        # Copies and pairs cannot be parted afterwards.
        wanted = _whole_count(request, request.count) or request.count
    else:
        wanted = request.count * settings.refinement.candidates
    proposal = METHODS[method](replace(request, count=wanted))
    # Processes that differ in a last bit must not grow different networks.
    proposal = replace(
        proposal, neurons=of_first(proposal.neurons), settled=of_first(proposal.settled)
    )
    if not len(proposal.neurons.alpha):
        return proposal, None, settings.amplitude
    if proposal.settled is not None:
        units, amplitude = proposal.settled, settings.amplitude
    else:
        started = time.perf_counter()
        units, amplitude = refined(request, proposal)
        # It is passes over images that take the time, as for the other moments.
        seconds = proposal.seconds_statistics + time.perf_counter() - started
        proposal = replace(proposal, seconds_statistics=seconds)
    units = of_first(units)
    return proposal, _whole_units(request, units) if len(units) else None, amplitude


def _whole_units(request: Request, units: NewUnits) -> NewUnits | None:
    """Return as many units as take the width to a multiple, where it is kept to multiples."""
    kept = _whole_count(request, len(units))
    if kept == len(units):
        return units
    return units.leading(kept) if kept else None


def _whole_count(request: Request, count: int) -> int:
    width = request.site.layers(request.network)[0].weight.shape[0]
    return whole(width, count, request.settings.where.width_multiple)


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


def add_neurons(request: Request, alike: Sequence[nn.Module] = ()) -> Extension:
    """Add up to `request.count` neurons at a site of `request.network`, in place (tiny.md 1.13).

    Any network of plain `torch.nn` layers will do, and any way of training it: an optimiser follows
    by `pad_optimizer(optimizer, extension.replaced)`.

    Args:
        request: network, site, neurons, images, settings.
        alike: networks of the same layers, such as moving averages, that are widened as well.
    """
    network, site, settings = request.network, request.site, request.settings
    statistics, smoothing = settings.statistics, settings.training.label_smoothing
    proposal, units, amplitude_settings = propose(request)
    if units is None:
        return Extension(site, proposal)

    started = time.perf_counter()
    images = list(request.sample(settings.amplitude.images))  # looked at once for each amplitude
    if proposal.settled is not None:
        amplitude = settled_amplitude(network, site, units, proposal.factor, images, smoothing)
    else:
        amplitude = search(request, proposal, units, images, amplitude_settings)
    amplitude = of_first(amplitude)
    seconds_search = time.perf_counter() - started
    if amplitude.units is None:
        return Extension(site, proposal, amplitude, seconds_search=seconds_search)

    started = time.perf_counter()
    added = len(amplitude.units)
    kept = amplitude.rejected or proposal.keeps_function
    measured = (site, added) if kept else None
    copied = kept and amplitude.units.copies is not None  # with the statistics
    replaced: list[Replacement] = []
    for wider in (network, *alike):
        replacements = widen(wider, site, amplitude.units)
        replaced = replaced or replacements
        if not copied:
            measure_running_statistics(wider, images, measured)
    after = None
    if proposal.bottleneck is not None:
        moments = update_moments(network, site, proposal.update_batches, statistics, smoothing)
        delta = once(best_update, moments.S1, moments.M, settings.solver.relative_cut)
        after = bottleneck(moments.power, moments.M, delta)
    return Extension(
        site,
        proposal,
        amplitude,
        added,
        after,
        tuple(replaced),
        seconds_search,
        time.perf_counter() - started,
    )


def extend(
    network: nn.Module,
    site: Site,
    count: int,
    trainer: Trainer,
    settings: GrowthSettings,
    *,
    generator: torch.Generator,
) -> Extension:
    """Add up to `count` neurons at a site, in place, and tell the trainer (see `add_neurons`).

    Args:
        network: the trainer's.
        site: where.
        count: neurons wanted.
        trainer: gives images; its optimiser, moving average and batch size follow.
        settings: of growth.
        generator: for random choices.
    """
    stream = trainer.stream
    request = Request(
        network=network,
        site=site,
        count=count,
        sample=lambda images: stream.sample(images, settings.statistics.batch_size),
        available=len(stream),
        settings=settings,
        generator=generator,
    )
    before = count_parameters(network)
    done = add_neurons(request, () if trainer.average is None else (trainer.average,))
    if done.added:
        trainer.adopt(done.replaced, settings.optimizer_state)
        if settings.batch_growth == "sqrt_parameters":
            trainer.batch_size *= (count_parameters(network) / before) ** 0.5
    return done
