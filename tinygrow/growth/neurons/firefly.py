"""Firefly's kind of growth: random small neurons, trained for a few steps, the best of them kept.

After Wu, Liu, Stone, Liu 2020 (tiny.md section 4). More candidates than wanted are added with small
random weights; Adam moves their fan-in and fan-out down the loss while the rest of the network
stands still. Norms stay as they were drawn, so that the steps turn neurons and do not enlarge them.
The candidates with the largest first-order gain are kept: the fall of the loss per amplitude at
which a candidate enters alone, (1/n) sum <V, omega sigma(alpha^T b)>. How large they enter is then
chosen as for TINY's neurons.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from tinygrow.growth.amplitude import Trial, normalize
from tinygrow.growth.bottleneck import Neurons
from tinygrow.growth.neurons.initial import fan_in_like, fan_out_like, zero_bias
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.sample_size import neuron_sample_size
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import batch_statistics, desired_update
from tinygrow.growth.surgery import NewUnits, as_neurons, as_units
from tinygrow.settings.methods import FireflySettings
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32

SMALL = 0.1
"""Amplitude of the candidates: together they give this share of the layer's own output."""


def propose(request: Request) -> Proposal:
    """Draw candidates, train them, and return those with the largest first-order gain."""
    network, site, settings = request.network, request.site, request.settings
    own, smoothing = settings.methods.firefly, settings.training.label_smoothing
    first, second = site.layers(network)
    started = time.perf_counter()
    with batch_statistics(network):
        _, h, _ = desired_update(network, site, request.sample(2)[0])
    images = neuron_sample_size(
        first, second, tuple(h.shape[2:]), request.available, settings.statistics
    )
    sample = request.sample(min(images, own.steps * settings.statistics.batch_size))
    count = max(request.count, round(own.candidates * request.count))
    drawn = NewUnits(
        fan_in=fan_in_like(first, count, request.generator),
        bias=zero_bias(first, count),
        fan_out=fan_out_like(first, second, count, request.generator),
    )
    root = math.sqrt(SMALL)
    candidates = as_neurons(normalize(network, site, drawn, sample[0]).scaled(root, root))
    candidates = trained(network, site, candidates, sample, own, smoothing)
    gains = first_order_gains(network, site, candidates, sample, smoothing)
    best = gains.argsort(descending=True)[: request.count]
    sizes = [len(labels) for _, labels in sample]
    return Proposal(
        neurons=replace(candidates, alpha=candidates.alpha[best], omega=candidates.omega[best]),
        images=sum(islice(cycle(sizes), own.steps)) + sum(sizes),
        seconds_statistics=time.perf_counter() - started,
    )


def trained(
    network: nn.Module,
    site: Site,
    candidates: Neurons,
    batches: Sequence[Batch],
    settings: FireflySettings,
    label_smoothing: float = 0.0,
) -> Neurons:
    """Return the candidates after some steps of Adam on the loss, each with the norms it had.

    Args:
        network: without them; not changed.
        site: where.
        candidates: at the amplitude at which they are to be trained.
        batches: one a step, in turn.
        settings: steps and learning rate.
        label_smoothing: that of the training loss.
    """
    weights = candidates.alpha, candidates.omega
    scales = [w.square().mean(1, keepdim=True).sqrt().clamp_min(1e-30) for w in weights]
    free = [(w / s).requires_grad_() for w, s in zip(weights, scales, strict=True)]

    def current() -> Neurons:
        alpha, omega = (w * s for w, s in zip(free, scales, strict=True))
        return replace(candidates, alpha=alpha, omega=omega)

    wide = _Wide(network, site, candidates)
    optimizer = torch.optim.Adam(free, lr=settings.learning_rate)
    for batch in islice(cycle(batches), settings.steps):
        optimizer.zero_grad()
        wide.loss(current(), batch, label_smoothing).backward()
        optimizer.step()
        with torch.no_grad():
            for w in free:
                w /= w.square().mean(1, keepdim=True).sqrt().clamp_min(1e-30)
    with torch.no_grad():
        return current()


def first_order_gains(
    network: nn.Module,
    site: Site,
    neurons: Neurons,
    batches: Sequence[Batch],
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return (K,): minus the derivative of the mean loss in each fan-out's amplitude, at zero."""
    gates = neurons.omega.new_zeros(len(neurons.omega), 1).requires_grad_()
    wide, images = _Wide(network, site, neurons), 0
    for batch in batches:
        gated = replace(neurons, omega=neurons.omega * gates)
        (wide.loss(gated, batch, label_smoothing) * len(batch[1])).backward()
        images += len(batch[1])
    assert gates.grad is not None
    return -gates.grad[:, 0] / images


class _Wide:
    """A copy of the network with neurons, whose loss is differentiable in these alone."""

    def __init__(self, network: nn.Module, site: Site, neurons: Neurons) -> None:
        units = as_units(neurons, *site.layers(network))
        self.network = Trial(network, site, units).network.requires_grad_(False)
        self.site = site
        first, second = site.layers(network)
        self.old, self.read = first.weight.shape[0], second.weight.shape[1]

    def loss(self, neurons: Neurons, batch: Batch, label_smoothing: float) -> torch.Tensor:
        """Return the mean loss with these neurons in the place of those at the beginning."""
        first, second = self.site.layers(self.network)
        units = as_units(neurons, first, second)
        weights = {
            f"{self.site.first}.weight": torch.cat([first.weight[: self.old], units.fan_in]),
            f"{self.site.second}.weight": torch.cat(
                [second.weight[:, : self.read], units.columns], 1
            ),
        }
        if first.bias is not None and units.bias is not None:
            weights[f"{self.site.first}.bias"] = torch.cat([first.bias[: self.old], units.bias])
        with torch.enable_grad(), batch_statistics(self.network), full_float32():
            logits = functional_call(self.network, weights, (batch[0],))
            return F.cross_entropy(logits, batch[1], label_smoothing=label_smoothing)
