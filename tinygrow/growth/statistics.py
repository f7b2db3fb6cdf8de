"""Second-order moments of a site, summed over mini-batches (tiny.md 1.2 to 1.6).

BatchNorm: statistics, line search and training all see the network with the statistics of the
mini-batch, as in the authors' code (tiny.md 1.12); running statistics are neither used nor
touched here. The desired update is therefore the gradient through the batch's normalisation. Only
evaluation uses running statistics.

Several processes look at whole mini-batches, so that each is normalised as one process would, and
all get the moments of all of them.

Nothing here is as large as images x output positions x taps x patch: im2col patches are held for a
few images at a time (`chunk_megabytes`), weighted by how often the second layer reads them; between
plain convolutions there are none at all.

Legend: n images, B^c patches that `first` reads, b patches that `second` reads, V desired update
of the output of `second`; p, p1 patch sizes, q outputs, T taps of `second`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from tinygrow.distributed import share, total
from tinygrow.growth.moments import CrossSum, GramSum
from tinygrow.growth.patches import Layer
from tinygrow.growth.sites import Site
from tinygrow.settings.growth import StatisticsSettings
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32


@dataclass(frozen=True, slots=True)
class UpdateMoments:
    """What the best move of the existing weights needs, in float64; every sum is divided by n.

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

    In the precision of the settings: that of products of which thousands are summed.

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


@dataclass(frozen=True, slots=True)
class Seen:
    """What one mini-batch shows at a site.

    Attributes:
        x: what `first` reads.
        h: what `second` reads.
        target: per-example desired update V of the raw output of `second`.
    """

    x: torch.Tensor
    h: torch.Tensor
    target: torch.Tensor


def desired_updates(
    network: nn.Module, sites: Sequence[Site], batch: Batch, label_smoothing: float = 0.0
) -> list[Seen]:
    """Return what every site reads and its desired update, from one forward and backward pass.

    V is minus the gradient of the summed (not averaged) cross-entropy with respect to the raw
    output of `second`, before any normalisation (tiny.md 1.2).

    Args:
        network: is run as it stands; see `batch_statistics`.
        sites: the pairs of layers, in any order; one layer may belong to two of them.
        batch: images (B, C, H, W) and labels (B,).
        label_smoothing: that of the training loss.

    Returns:
        Maps (B, C, H, W) of convolutions; rows (B, features) of linear layers, or as many rows an
        image as it has tokens.
    """
    inputs: dict[nn.Module, torch.Tensor] = {}
    edges: dict[nn.Module, GradientEdge] = {}
    pairs = [site.layers(network) for site in sites]

    def keep_input(layer: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        inputs[layer] = arguments[0].detach()

    def keep_edge(
        layer: nn.Module, _: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        if not edges or not output.requires_grad:
            # The graph before the first site is neither needed nor kept. The sum, unlike a leaf,
            # may be overwritten by an activation in place, as may the outputs of later sites: what
            # is kept of them is their place in the graph.
            output = output.detach() + output.new_zeros(()).requires_grad_()
        edges[layer] = get_gradient_edge(output)
        return output

    handles = [
        layer.register_forward_pre_hook(keep_input) for layer in {m for pair in pairs for m in pair}
    ]
    handles += [layer.register_forward_hook(keep_edge) for layer in {pair[1] for pair in pairs}]
    try:
        with torch.enable_grad():
            logits = network(batch[0])
            loss = F.cross_entropy(
                logits, batch[1], reduction="sum", label_smoothing=label_smoothing
            )
            gradients = torch.autograd.grad(loss, [edges[second] for _, second in pairs])
    finally:
        for handle in handles:
            handle.remove()
    return [
        Seen(
            rows_of(first, inputs[first]),
            rows_of(second, inputs[second]),
            rows_of(second, -gradient),
        )
        for (first, second), gradient in zip(pairs, gradients, strict=True)
    ]


def desired_update(
    network: nn.Module, site: Site, batch: Batch, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what `first` reads, what `second` reads, and V: `desired_updates` of one site."""
    (seen,) = desired_updates(network, [site], batch, label_smoothing)
    return seen.x, seen.h, seen.target


def update_moments_of(
    network: nn.Module,
    sites: Sequence[Site],
    batches: Sequence[Batch],
    settings: StatisticsSettings,
    label_smoothing: float = 0.0,
) -> list[UpdateMoments]:
    """Measure S1 and M (tiny.md 1.3) at every site, with one backward pass a mini-batch.

    The sums of all sites are held at once.
    """
    dtype, bound = getattr(torch, settings.dtype), _bound(settings)
    layers = [site.layers(network)[1] for site in sites]
    sums = [(GramSum(second, bound), CrossSum(second, bound)) for second in layers]
    powers = [torch.zeros((), dtype=torch.float64, device=m.weight.device) for m in layers]
    images = 0
    with batch_statistics(network), full_float32():
        for batch in share(batches):
            seen = desired_updates(network, sites, batch, label_smoothing)
            for one, (gram, cross), power in zip(seen, sums, powers, strict=True):
                h, target = one.h.to(dtype), one.target.to(dtype)
                gram.add(h)
                cross.add(h, target)
                power += target.double().square().sum()
            images += len(batch[1])
    images, found = total(
        images,
        lambda: [
            moment
            for (gram, cross), power in zip(sums, powers, strict=True)
            for moment in (gram.result(), cross.result(), power)
        ],
    )
    return [
        UpdateMoments(
            S1.double().div_(images), M.double().div_(images), float(power) / images, images
        )
        for S1, M, power in zip(found[::3], found[1::3], found[2::3], strict=True)
    ]


def update_moments(
    network: nn.Module,
    site: Site,
    batches: Sequence[Batch],
    settings: StatisticsSettings,
    label_smoothing: float = 0.0,
) -> UpdateMoments:
    """Measure S1 and M at a site (tiny.md 1.3)."""
    return update_moments_of(network, [site], batches, settings, label_smoothing)[0]


def neuron_moments_of(
    network: nn.Module,
    sites: Sequence[Site],
    batches: Sequence[Batch],
    deltas: Sequence[torch.Tensor | None],
    settings: StatisticsSettings,
    label_smoothing: float = 0.0,
    gram: bool = True,
) -> list[NeuronMoments]:
    """Measure S and N (tiny.md 1.4, 1.6) at every site, with one backward pass a mini-batch.

    Args:
        network: as it stands.
        sites: the pairs of layers; the sums of all are held at once.
        batches: images of the estimate.
        deltas: for each site the (q, p1) best move of the existing weights; V is projected,
            V - delta b. None: V.
        settings: precision and chunks.
        label_smoothing: that of the training loss.
        gram: measure S too, which is half of the work.
    """
    dtype, bound = getattr(torch, settings.dtype), _bound(settings)
    pairs = [site.layers(network) for site in sites]
    sums = [
        (
            GramSum(first, bound, second, site.poolings),
            CrossSum(first, bound, second, site.poolings),
        )
        for (first, second), site in zip(pairs, sites, strict=True)
    ]
    images = 0
    with batch_statistics(network), full_float32():
        for batch in share(batches):
            seen = desired_updates(network, sites, batch, label_smoothing)
            for one, (_, second), delta, (squares, cross) in zip(
                seen, pairs, deltas, sums, strict=True
            ):
                target = one.target
                if delta is not None:
                    target = target - apply_update(second, one.h, delta)
                x, target = one.x.to(dtype), target.to(dtype)
                if gram:
                    squares.add(x)
                cross.add(x, target)
            images += len(batch[1])
    images, found = total(
        images,
        lambda: [
            moment
            for squares, cross in sums
            for moment in (squares.result() if gram else torch.zeros(0, 0), cross.result())
        ],
    )
    return [
        NeuronMoments(S.div_(images).to(dtype), N.div_(images).to(dtype), images)
        for S, N in zip(found[::2], found[1::2], strict=True)
    ]


def neuron_moments(
    network: nn.Module,
    site: Site,
    batches: Sequence[Batch],
    delta: torch.Tensor | None,
    settings: StatisticsSettings,
    label_smoothing: float = 0.0,
    gram: bool = True,
) -> NeuronMoments:
    """Measure S and N at a site (tiny.md 1.4, 1.6); see `neuron_moments_of`."""
    return neuron_moments_of(network, [site], batches, [delta], settings, label_smoothing, gram)[0]


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


def rows_of(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """Return (rows, features) of what a linear layer reads or writes, whatever stands before."""
    return x.flatten(0, -2) if isinstance(layer, nn.Linear) else x


def _bound(settings: StatisticsSettings) -> int:
    """Return the numbers that may be held at once."""
    return settings.chunk_megabytes * 2**20 // (8 if settings.dtype == "float64" else 4)
