"""Second-order moments of a site, summed over mini-batches (tiny.md 1.2 to 1.6).

BatchNorm: statistics, line search and training all see the network with the statistics of the
mini-batch, as in the authors' code (tiny.md 1.12); running statistics are neither used nor
touched here. The desired update is therefore the gradient through the batch's normalisation. Only
evaluation uses running statistics.

Nothing here is as large as images x output positions x taps x patch: im2col patches are held for a
few images at a time (`chunk_megabytes`), weighted by how often the second layer reads them.

Legend: n images, B^c patches that `first` reads, b patches that `second` reads, V desired update
of the output of `second`; p, p1 patch sizes, q outputs, T taps of `second`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.growth.moments import CrossSum, GramSum
from tinygrow.growth.patches import Layer
from tinygrow.growth.sites import Site
from tinygrow.settings.growth import StatisticsSettings
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32


@dataclass(frozen=True, slots=True)
class UpdateMoments:
    """What the best move of the existing weights needs; every sum is divided by n.

    Attributes:
        S1: (p1, p1) second-order moment of what `second` reads.
        M: (p1, q) cross moment with the desired update.
        power: (1/n) sum of ||V||^2.
        images: n.
    """

    S1: torch.Tensor
    M: torch.Tensor
    power: float
    images: int


@dataclass(frozen=True, slots=True)
class NeuronMoments:
    """What the optimal new neurons need; every sum is divided by n.

    Attributes:
        S: (p, p) moment of what `first` reads, weighted by how often `second` reads the position;
            (0, 0) where it was not asked for.
        N: (p, q * T) cross moment with the (projected) desired update.
        images: n.
    """

    S: torch.Tensor
    N: torch.Tensor
    images: int


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Let BatchNorm use, and not record, the mini-batch's statistics; all else in evaluation."""
    modes = [(m, m.training) for m in network.modules()]
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    tracked = [m.track_running_stats for m in norms]
    network.eval()
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, flag in zip(norms, tracked, strict=True):
            norm.track_running_stats = flag


def desired_update(
    network: nn.Module, site: Site, batch: Batch, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what `first` reads, what `second` reads, and the per-example desired update V.

    V is minus the gradient of the summed (not averaged) cross-entropy with respect to the raw
    output of `second`, before any normalisation (tiny.md 1.2).

    Args:
        network: is run as it stands; see `batch_statistics`.
        site: the pair of layers.
        batch: images (B, C, H, W) and labels (B,).
        label_smoothing: that of the training loss.

    Returns:
        Maps (B, C, H, W) of convolutions; rows (B, features) of linear layers, or as many rows an
        image as it has tokens.
    """
    first, second = site.layers(network)
    kept: dict[str, torch.Tensor] = {}

    def keep_input(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        kept["x"] = inputs[0].detach()

    def cut_output(
        _: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        # A leaf in the output's place: the graph before it is neither needed nor kept.
        kept["h"] = inputs[0].detach()
        kept["a"] = output.detach().requires_grad_()
        return kept["a"].clone()  # an activation in place may overwrite a copy, but no leaf

    handles = [
        first.register_forward_pre_hook(keep_input),
        second.register_forward_hook(cut_output),
    ]
    try:
        with torch.enable_grad():
            logits = network(batch[0])
            loss = F.cross_entropy(
                logits, batch[1], reduction="sum", label_smoothing=label_smoothing
            )
            (gradient,) = torch.autograd.grad(loss, kept["a"])
    finally:
        for handle in handles:
            handle.remove()
    return (
        _rows(first, kept["x"]),
        _rows(second, kept["h"]),
        _rows(second, -gradient),
    )


def update_moments(
    network: nn.Module,
    site: Site,
    batches: Sequence[Batch],
    settings: StatisticsSettings,
    label_smoothing: float = 0.0,
) -> UpdateMoments:
    """Measure S1 and M at a site (tiny.md 1.3)."""
    second, dtype = site.layers(network)[1], getattr(torch, settings.dtype)
    gram, cross = GramSum(second, _bound(settings)), CrossSum(second, _bound(settings))
    power = torch.zeros((), dtype=torch.float64, device=second.weight.device)
    images = 0
    with batch_statistics(network), full_float32():
        for batch in batches:
            _, h, target = desired_update(network, site, batch, label_smoothing)
            h, target = h.to(dtype), target.to(dtype)
            gram.add(h)
            cross.add(h, target)
            power += target.double().square().sum()
            images += len(batch[1])
    return UpdateMoments(
        gram.result() / images, cross.result() / images, float(power) / images, images
    )


def neuron_moments(
    network: nn.Module,
    site: Site,
    batches: Sequence[Batch],
    delta: torch.Tensor | None,
    settings: StatisticsSettings,
    label_smoothing: float = 0.0,
    gram: bool = True,
) -> NeuronMoments:
    """Measure S and N at a site (tiny.md 1.4, 1.6).

    Args:
        network: as it stands.
        site: the pair of layers.
        batches: images of the estimate.
        delta: (q, p1) best move of the existing weights; V is projected, V - delta b. None: V.
        settings: precision and chunks.
        label_smoothing: that of the training loss.
        gram: measure S too, which is half of the work.
    """
    first, second = site.layers(network)
    dtype, bound = getattr(torch, settings.dtype), _bound(settings)
    squares = GramSum(first, bound, second, site.poolings)
    cross = CrossSum(first, bound, second, site.poolings)
    images = 0
    with batch_statistics(network), full_float32():
        for batch in batches:
            x, h, target = desired_update(network, site, batch, label_smoothing)
            if delta is not None:
                target = target - apply_update(second, h, delta)
            x, target = x.to(dtype), target.to(dtype)
            if gram:
                squares.add(x)
            cross.add(x, target)
            images += len(batch[1])
    N = cross.result() / images
    return NeuronMoments(squares.result() / images if gram else N.new_zeros(0, 0), N, images)


@torch.no_grad()
def apply_update(second: Layer, h: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Return delta b: what the move of weights (q, p1), bias last, does to the layer's output."""
    delta = delta.to(h.dtype)
    weight, bias = delta, None
    if second.bias is not None:
        weight, bias = delta[:, :-1], delta[:, -1]
    return apply_layer(second, h, weight.reshape(second.weight.shape), bias)


def apply_layer(
    layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Apply other weights with the geometry of `layer`."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation)


def _rows(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """Return (rows, features) of what a linear layer reads or writes, whatever stands before."""
    return x.flatten(0, -2) if isinstance(layer, nn.Linear) else x


def _bound(settings: StatisticsSettings) -> int:
    """Return the numbers that may be held at once."""
    return settings.chunk_megabytes * 2**20 // (8 if settings.dtype == "float64" else 4)
