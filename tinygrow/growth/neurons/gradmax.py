"""GradMax: silent neurons whose fan-in gets the largest gradient (tiny.md 1.9 and section 4).

As TINY with S = I, without projection and with the fan-in set to zero, so that the function is
kept. BatchNorm behind the widened layer takes the mean off what the new neurons read; the closed
form does not know of that, as TINY's does not. The amplitude is fixed (`amplitude.fixed_factor`,
the paper's 1e-3): neurons without fan-in change no loss that a search could look at.
"""

import time

import torch

from tinygrow.distributed import once
from tinygrow.growth.bottleneck import gradmax_neurons
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.sample_size import neuron_sample_size
from tinygrow.growth.statistics import batch_statistics, desired_update, neuron_moments
from tinygrow.growth.surgery import as_units


def propose(request: Request) -> Proposal:
    """Measure N alone, and return its leading right singular vectors as fan-out weights."""
    network, site, statistics = request.network, request.site, request.settings.statistics
    first, second = site.layers(network)

    started = time.perf_counter()
    with batch_statistics(network):
        _, h, _ = desired_update(network, site, request.sample(2)[0])
    images = neuron_sample_size(first, second, tuple(h.shape[2:]), request.available, statistics)
    pair = neuron_moments(
        network,
        site,
        request.sample(images),
        None,
        statistics,
        request.settings.training.label_smoothing,
        gram=False,
    )
    rounding = torch.finfo(getattr(torch, statistics.dtype)).eps * float(pair.N.norm())
    seconds_statistics = time.perf_counter() - started

    started = time.perf_counter()
    neurons = once(gradmax_neurons, pair.N, request.count, rounding)
    factor = request.settings.amplitude.fixed_factor
    return Proposal(
        neurons=neurons,
        settled=as_units(neurons, first, second).scaled(1.0, factor),
        factor=factor,
        keeps_function=True,
        images=pair.images,
        seconds_statistics=seconds_statistics,
        seconds_solve=time.perf_counter() - started,
    )
