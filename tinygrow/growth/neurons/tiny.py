"""TINY: the neurons that reduce the expressivity bottleneck most (tiny.md 1.3 to 1.6, 1.13)."""

import time
from collections.abc import Callable, Sequence

import torch

from tinygrow.distributed import once
from tinygrow.growth.bottleneck import Neurons, best_update, bottleneck, optimal_neurons
from tinygrow.growth.halves import Halves, with_ridge
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.sample_size import neuron_sample_size, update_sample_size
from tinygrow.growth.statistics import (
    NeuronMoments,
    batch_statistics,
    desired_update,
    neuron_moments,
    update_moments,
)
from tinygrow.training.batches import Batch

Solver = Callable[[torch.Tensor, torch.Tensor, int, float, float], Neurons]
"""From S, N, count, relative cut and floor to neurons, as `optimal_neurons` is."""


def propose(request: Request, solve: Solver = optimal_neurons) -> Proposal:
    """Measure S1, M, then S, N, and return the leading singular directions as neurons.

    The best move of the existing weights is only used for the projection; it is not applied
    (tiny.md 1.10).
    """
    network, site, settings = request.network, request.site, request.settings
    statistics, cut = settings.statistics, settings.solver.relative_cut
    smoothing = settings.training.label_smoothing
    first, second = site.layers(network)

    started = time.perf_counter()
    with batch_statistics(network):
        _, h, _ = desired_update(network, site, request.sample(2)[0])
    hidden = tuple(h.shape[2:])
    update_images = request.sample(
        update_sample_size(second, hidden, request.available, statistics)
    )
    moments = update_moments(network, site, update_images, statistics, smoothing)
    seconds_statistics = time.perf_counter() - started

    started = time.perf_counter()
    delta = once(best_update, moments.S1, moments.M, cut)
    before = bottleneck(moments.power, moments.M, delta)
    seconds_solve = time.perf_counter() - started

    started = time.perf_counter()
    neuron_images = update_images
    if not statistics.same_sample:
        images = neuron_sample_size(first, second, hidden, request.available, statistics)
        neuron_images = request.sample(
            images if statistics.size == "formula" else statistics.min_images
        )
    projection = delta if settings.solver.projection else None
    pair, ridge = _neuron_moments(request, neuron_images, projection)
    if pair.S.is_cuda:  # so that the clock does not count moments as solving
        torch.cuda.synchronize(pair.S.device)
    seconds_statistics += time.perf_counter() - started

    started = time.perf_counter()
    # Where the existing weights can do all of the desired update, N is rounding, which S^(-1/2)
    # magnifies by up to relative_cut^(-1/2).
    rounding = torch.finfo(getattr(torch, statistics.dtype)).eps * (moments.power / cut) ** 0.5
    S = with_ridge(pair.S, ridge)
    neurons = once(solve, S, pair.N, request.count, cut, rounding)
    seconds_solve += time.perf_counter() - started
    return Proposal(
        neurons=neurons,
        bottleneck=before,
        update_batches=update_images,
        images=moments.images + pair.images,
        seconds_statistics=seconds_statistics,
        seconds_solve=seconds_solve,
    )


def _neuron_moments(
    request: Request, images: Sequence[Batch], projection: torch.Tensor | None
) -> tuple[NeuronMoments, float]:
    """Return S and N, and the ridge of S; in halves where the estimation error is asked for."""
    settings, statistics = request.settings, request.settings.statistics
    smoothing, cut = settings.training.label_smoothing, settings.solver.relative_cut

    def measure(part: Sequence[Batch]) -> NeuronMoments:
        return neuron_moments(
            request.network, request.site, part, projection, statistics, smoothing
        )

    crossed = settings.solver.shrinkage == "cross_validated"
    if not crossed and statistics.size == "formula":
        return measure(images), 0.0

    def measure_halves(batches: list[Batch]) -> Halves:
        if len(batches) == 1:  # halves of the same images would always agree
            batches = _halved(batches[0])
        middle = (len(batches) + 1) // 2
        return Halves(measure(batches[:middle]), measure(batches[middle:]))

    halves = measure_halves(list(images))
    while True:
        # Decided once: processes that went on differently would wait for each other for ever.
        ridge = once(halves.best_ridge, request.count, cut) if crossed else 0.0
        seen = halves.one.images + halves.two.images
        most = min(request.available, statistics.max_images or request.available)
        enough = statistics.size == "formula" or seen * 2 > most
        if enough or once(halves.agreement, request.count, cut, ridge) >= statistics.agreement:
            return halves.together(), ridge
        halves = halves.joined(measure_halves(list(request.sample(seen))))


def _halved(batch: Batch) -> list[Batch]:
    images, labels = batch
    middle = (len(labels) + 1) // 2
    return [(images[:middle], labels[:middle]), (images[middle:], labels[middle:])]
