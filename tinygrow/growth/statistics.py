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

from tinygrow.growth.patches import (
    Layer,
    multiplicity,
    output_size,
    patch_size,
    patches,
    readings,
)
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
        return kept["a"]

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
    return kept["x"], kept["h"], -gradient


@torch.no_grad()
def add_update_moments(
    second: Layer,
    h: torch.Tensor,
    target: torch.Tensor,
    sums: tuple[torch.Tensor, torch.Tensor],
    settings: StatisticsSettings,
) -> None:
    """Add sum b b^T to sums[0] and sum b V^T to sums[1] (float64), chunk by chunk.

    Args:
        second: the layer that reads h.
        h: (B, C, H, W) or (B, C).
        target: V, of the shape of the layer's output.
        sums: (p1, p1) and (p1, q), changed in place.
        settings: precision of the products, size of the chunks.
    """
    dtype = getattr(torch, settings.dtype)
    positions = target[0, 0].numel()
    for part in _chunks(len(h), positions * (2 * patch_size(second) + target.shape[1]), settings):
        b = _flat(patches(second, h[part].to(dtype)))
        v = _flat(
            target[part].to(dtype).flatten(2)
            if target.ndim > 2
            else target[part].to(dtype).unsqueeze(-1)
        )
        sums[0].add_(b @ b.T)
        sums[1].add_(b @ v.T)


@torch.no_grad()
def add_neuron_moments(
    first: Layer,
    second: Layer,
    x: torch.Tensor,
    target: torch.Tensor,
    sums: tuple[torch.Tensor, torch.Tensor],
    settings: StatisticsSettings,
) -> None:
    """Add to sums[0] the weighted Gram of B^c, to sums[1] its cross moment with V (float64).

    S = sum_i B^c_i diag(m) B^c_i^T, m the multiplicity of each hidden position: equal to the sum
    over output positions and taps with the T_j maps (tiny.md 1.6).

    Args:
        first: the layer that widens.
        second: the layer that reads its outputs.
        x: what `first` reads, (B, C, H, W) or (B, C).
        target: V (projected or not), of the shape of the output of `second`.
        sums: (p, p), or (0, 0) to leave the Gram out, and (p, q * T), changed in place.
        settings: precision of the products, size of the chunks.
    """
    dtype = getattr(torch, settings.dtype)
    hidden = output_size(first, tuple(x.shape[2:]))
    weights = multiplicity(second, hidden, tuple(target.shape[2:])).to(x.device, dtype)
    taps = second.weight[0, 0].numel()
    row = weights.numel() * (3 * patch_size(first) + 2 * target.shape[1] * taps)
    for part in _chunks(len(x), row, settings):
        columns = patches(first, x[part].to(dtype))
        b = _flat(columns)
        if len(sums[0]):
            sums[0].add_(_flat(columns * weights) @ b.T)
        sums[1].add_(b @ _flat(readings(second, target[part].to(dtype), hidden)).T)


def update_moments(
    network: nn.Module,
    site: Site,
    batches: Sequence[Batch],
    settings: StatisticsSettings,
    label_smoothing: float = 0.0,
) -> UpdateMoments:
    """Measure S1 and M at a site (tiny.md 1.3)."""
    second = site.layers(network)[1]
    size, outputs = patch_size(second), second.weight.shape[0]
    sums = _zeros(second, (size, size), (size, outputs))
    power = torch.zeros((), dtype=torch.float64, device=second.weight.device)
    images = 0
    with batch_statistics(network), full_float32():
        for batch in batches:
            _, h, target = desired_update(network, site, batch, label_smoothing)
            add_update_moments(second, h, target, sums, settings)
            power += target.double().square().sum()
            images += len(target)
    return UpdateMoments(
        _symmetric(sums[0]) / images, sums[1] / images, float(power) / images, images
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
    size, outputs = patch_size(first), second.weight.shape[0] * second.weight[0, 0].numel()
    sums = _zeros(second, (size, size) if gram else (0, 0), (size, outputs))
    images = 0
    with batch_statistics(network), full_float32():
        for batch in batches:
            x, h, target = desired_update(network, site, batch, label_smoothing)
            if delta is not None:
                target = target - apply_update(second, h, delta)
            add_neuron_moments(first, second, x, target, sums, settings)
            images += len(target)
    return NeuronMoments(_symmetric(sums[0]) / images, sums[1] / images, images)


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


def _zeros(like: Layer, *shapes: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (torch.zeros(s, dtype=torch.float64, device=like.weight.device) for s in shapes)
    return a, b


def _flat(columns_BPL: torch.Tensor) -> torch.Tensor:
    return columns_BPL.transpose(0, 1).flatten(1)


def _symmetric(matrix: torch.Tensor) -> torch.Tensor:
    return 0.5 * (matrix + matrix.T)


def _chunks(images: int, numbers_an_image: int, settings: StatisticsSettings) -> Iterator[slice]:
    """Cut a mini-batch so that a chunk's patches fit into the bound; at least one image each."""
    width = 8 if settings.dtype == "float64" else 4
    step = max(1, settings.chunk_megabytes * 2**20 // (numbers_an_image * width))
    for start in range(0, images, step):
        yield slice(start, start + step)
