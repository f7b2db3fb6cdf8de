"""Widening a network: the only place where layers change their shape.

The network stays one of plain `torch.nn` modules: parameters are replaced by wider ones, module
attributes follow, and the replaced parameters are reported so that an optimiser can follow too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from tinygrow.errors import TinygrowError
from tinygrow.growth.bottleneck import Neurons
from tinygrow.growth.patches import Layer
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import batch_statistics
from tinygrow.training.batches import Batch
from tinygrow.training.optimizer import Replacement

WAKING_OFFSET = 1e-6
"""Where units without fan-in stand: on the side of ReLU's kink that lets the gradient through."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Which existing units the new ones are copies of, and their parts of the fan-out.

    Attributes:
        source: (K,) int64, the existing unit.
        share: (K,) of that unit's fan-out, which the copy takes over.
    """

    source: torch.Tensor
    share: torch.Tensor


@dataclass(frozen=True, slots=True)
class NewUnits:
    """Weights of K new hidden units.

    Attributes:
        fan_in: (K, C_in, kh, kw) or (K, in_features).
        bias: (K,), or None where the first layer has no bias.
        fan_out: (C_out, K, kh, kw), (out_features, K), or (out_features, K, T) where a map of T
            positions is flattened before a linear layer, which reads each of them (`columns`).
        offset: shift of what the activation reads, whatever the units are scaled by. PyTorch's
            ReLU has gradient 0 at 0, so that units whose fan-in is zero would never learn without.
        rescale: (old width,) factors of the existing units' fan-out; None: it stays.
        copies: what `widen` takes over from the network that it widens, be it the trained one or
            its moving average, in place of the weights here: fan-in, bias, parts of the fan-out,
            and the normalisation with its running statistics. None: the units are new.
    """

    fan_in: torch.Tensor
    bias: torch.Tensor | None
    fan_out: torch.Tensor
    offset: float = 0.0
    rescale: torch.Tensor | None = None
    copies: Copies | None = None

    def __len__(self) -> int:
        return len(self.fan_in)

    @property
    def columns(self) -> torch.Tensor:
        """The fan-out as the columns of the second layer's weight, channel-major."""
        return self.fan_out.flatten(1) if self.fan_out.ndim == 3 else self.fan_out

    def scaled(self, fan_in: float, fan_out: float) -> "NewUnits":
        """Return units with fan-in (and bias) and fan-out multiplied."""
        bias = None if self.bias is None else self.bias * fan_in
        return replace(self, fan_in=self.fan_in * fan_in, bias=bias, fan_out=self.fan_out * fan_out)

    def layer_bias(self, site: Site) -> torch.Tensor | None:
        """Return the bias of the widened layer: with the offset, unless a norm would undo it."""
        if self.bias is None or site.norm is not None:
            return self.bias
        return self.bias + self.offset


def as_units(neurons: Neurons, first: Layer, second: Layer) -> NewUnits:
    """Reshape alpha (K, p) and omega (K, q * T) to the layers' weights, in their dtype.

    Neurons without any fan-in, GradMax's, get the offset that they need to learn.
    """
    offset = 0.0 if bool(neurons.alpha.any()) else WAKING_OFFSET
    alpha, omega = neurons.alpha.to(first.weight.dtype), neurons.omega.to(second.weight.dtype)
    bias = None
    if first.bias is not None:
        alpha, bias = alpha[:, :-1], alpha[:, -1]
    fan_in = alpha.reshape(-1, *first.weight.shape[1:])
    fan_out = omega.reshape(-1, second.weight.shape[0], *second.weight.shape[2:]).transpose(0, 1)
    return NewUnits(fan_in.contiguous(), bias, fan_out.contiguous(), offset)


def as_neurons(units: NewUnits) -> Neurons:
    """Return the units as vectors without singular values: the inverse of `as_units`."""
    alpha, omega = units.fan_in.flatten(1), units.fan_out.transpose(0, 1).flatten(1)
    if units.bias is not None:
        alpha = torch.cat([alpha, units.bias[:, None]], 1)
    none = torch.empty(0, dtype=torch.float64)
    return Neurons(alpha, omega, none, none)


def fan_out_of(first: Layer, second: Layer) -> torch.Tensor:
    """Return the weights of `second` unit by unit of `first`, shaped as `NewUnits.fan_out` is."""
    weight, width = second.weight.detach(), first.weight.shape[0]
    return weight if weight.shape[1] == width else weight.unflatten(1, (width, -1))


def copied_units(
    first: Layer, second: Layer, copies: Copies, rescale: torch.Tensor | None
) -> NewUnits:
    """Return units that are copies of existing ones, which keep `rescale` of their fan-out."""
    source, weight = copies.source, fan_out_of(first, second)
    share = copies.share.to(weight.dtype).reshape(1, -1, *[1] * (weight.ndim - 2))
    return NewUnits(
        fan_in=first.weight.detach()[source],
        bias=None if first.bias is None else first.bias.detach()[source],
        fan_out=weight[:, source] * share,
        rescale=rescale,
        copies=copies,
    )


@torch.no_grad()
def widen(network: nn.Module, site: Site, units: NewUnits) -> list[Replacement]:
    """Append the units to the site, in place; old weights keep their values and positions.

    Only where the units say so, the old fan-out is rescaled; the optimiser's state of it stays, as
    a part of a fan-out has the gradient of the whole. New BatchNorm channels get weight 1, the
    units' offset as bias and running statistics 0 and 1: measure them with
    `measure_running_statistics` before any evaluation. Those of copies take all of it over.

    Args:
        network: holds the site.
        site: where.
        units: at least one; on the network's device.

    Returns:
        The replaced parameters, for the optimiser.

    Raises:
        TinygrowError: the units have an offset, and the site has no bias to hold it.
    """
    first, second = site.layers(network)
    count = len(units)
    norm = None if site.norm is None else network.get_submodule(site.norm)
    if units.offset and (norm or first).bias is None:
        raise TinygrowError(
            f"{site.norm or site.first} has no bias, which new units without fan-in need to learn;"
            " give it one or take a method other than gradmax"
        )
    if units.copies is not None:
        units = copied_units(first, second, units.copies, units.rescale)
    replaced = [
        _grow(first, "weight", units.fan_in, 0),
        _grow(second, "weight", units.columns, 1, units.rescale),
    ]
    if first.bias is not None:
        bias = units.layer_bias(site)
        assert bias is not None
        replaced.append(_grow(first, "bias", bias, 0))
    if isinstance(first, nn.Conv2d):
        first.out_channels += count
    else:
        first.out_features += count
    if isinstance(second, nn.Conv2d):
        second.in_channels += count
    else:
        second.in_features += count
    if norm is not None:
        replaced += _widen_norm(norm, count, units)
    return replaced


def _widen_norm(norm: nn.Module, count: int, units: NewUnits) -> list[Replacement]:
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    norm.num_features += count

    def channels(old: torch.Tensor, value: float) -> torch.Tensor:
        if units.copies is None:
            return old.new_full((count,), value)
        of_units = old.detach().unflatten(0, (-1, count // len(units)))
        return of_units[units.copies.source].flatten()

    replaced = []
    if norm.affine:
        replaced.append(_grow(norm, "weight", channels(norm.weight, 1.0), 0))
        replaced.append(_grow(norm, "bias", channels(norm.bias, units.offset), 0))
    if norm.running_mean is not None and norm.running_var is not None:
        mean, variance = norm.running_mean, norm.running_var
        norm.running_mean = torch.cat([mean, channels(mean, 0.0)])
        norm.running_var = torch.cat([variance, channels(variance, 1.0)])
    return replaced


def _grow(
    module: nn.Module,
    name: str,
    addition: torch.Tensor,
    dim: int,
    rescale: torch.Tensor | None = None,
) -> Replacement:
    old = module.get_parameter(name)
    kept = old.detach()
    if rescale is not None:
        factors = rescale.to(old.device, old.dtype).repeat_interleave(
            old.shape[dim] // len(rescale)
        )
        kept = kept * factors.reshape(*[1] * dim, -1, *[1] * (old.ndim - dim - 1))
    wider = torch.cat([kept, addition.to(old.device, old.dtype)], dim)
    if wider.ndim == 4 and old.is_contiguous(memory_format=torch.channels_last):
        wider = wider.contiguous(memory_format=torch.channels_last)
    new = nn.Parameter(wider, requires_grad=old.requires_grad)
    setattr(module, name, new)
    return Replacement(old, new, dim)


@torch.no_grad()
def measure_running_statistics(
    network: nn.Module, batches: Iterable[Batch], only: tuple[Site, int] | None = None
) -> None:
    """Give BatchNorm layers the mean and (unbiased) variance of what they read on `batches`.

    New channels have no statistics yet, and those of the layers behind an extension are of another
    function. Where new units have no fan-out yet, `only` keeps the function in evaluation mode too.

    Args:
        network: already widened.
        batches: as in training (augmented); each is normalised by its own statistics.
        only: a site and the number of its new channels; all else stays as it is. None: every
            channel of every layer.
    """
    chosen = None if only is None else only[0].norm
    if only is not None and chosen is None:
        return
    measured = {
        norm: _Moments()
        for name, norm in network.named_modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and norm.running_mean is not None
        and chosen in (None, name)
    }
    handles = [norm.register_forward_pre_hook(add) for norm, add in measured.items()]
    try:
        with batch_statistics(network):
            for images, _ in batches:
                network(images)
    finally:
        for handle in handles:
            handle.remove()
    for norm, moments in measured.items():
        assert norm.running_mean is not None and norm.running_var is not None
        mean, variance = moments.mean_and_variance()
        first = 0 if only is None else len(mean) - only[1]
        norm.running_mean[first:] = mean[first:].to(norm.running_mean.dtype)
        norm.running_var[first:] = variance[first:].to(norm.running_var.dtype)


class _Moments:
    """A forward hook that sums what a layer reads, channel by channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: torch.Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)
        sums = torch.stack([values.sum(1), values.square().sum(1)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.count += values.shape[1]

    def mean_and_variance(self) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.sums is not None
        mean, square = self.sums / self.count
        variance = (square - mean.square()).clamp_min(0.0)
        return mean, variance * (self.count / max(self.count - 1, 1))
