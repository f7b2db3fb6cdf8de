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
class NewUnits:
    """Weights of K new hidden units, in the layers' own shapes.

    Attributes:
        fan_in: (K, C_in, kh, kw) or (K, in_features).
        bias: (K,), or None where the first layer has no bias.
        fan_out: (C_out, K, kh, kw) or (out_features, K).
        offset: shift of what the activation reads, whatever the units are scaled by. PyTorch's
            ReLU has gradient 0 at 0, so that units whose fan-in is zero would never learn without.
        norm_weight: (K,) of the normalisation between the layers, in place of ones.
        norm_bias: (K,), in place of the offset; both or neither.
    """

    fan_in: torch.Tensor
    bias: torch.Tensor | None
    fan_out: torch.Tensor
    offset: float = 0.0
    norm_weight: torch.Tensor | None = None
    norm_bias: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.fan_in)

    def scaled(self, fan_in: float, fan_out: float) -> "NewUnits":
        """Return units with fan-in (and bias) and fan-out multiplied.

        A normalisation's own affine values follow the fan-in.
        """
        return replace(
            self,
            fan_in=self.fan_in * fan_in,
            bias=_times(self.bias, fan_in),
            fan_out=self.fan_out * fan_out,
            norm_weight=_times(self.norm_weight, abs(fan_in)),
            norm_bias=_times(self.norm_bias, fan_in),
        )

    def signed(self, signs: torch.Tensor) -> "NewUnits":
        """Return units of which each has its sign (K,), in fan-in and fan-out together."""
        signs = signs.to(self.fan_in)
        return replace(
            self,
            fan_in=self.fan_in * signs.reshape(-1, *[1] * (self.fan_in.ndim - 1)),
            bias=_times(self.bias, signs),
            fan_out=self.fan_out * signs.reshape(1, -1, *[1] * (self.fan_out.ndim - 2)),
            norm_bias=_times(self.norm_bias, signs),
        )

    def layer_bias(self, site: Site) -> torch.Tensor | None:
        """Return the bias of the widened layer: with the offset, unless a norm would undo it."""
        if self.bias is None or site.norm is not None:
            return self.bias
        return self.bias + self.offset


def _times(values: torch.Tensor | None, factor: float | torch.Tensor) -> torch.Tensor | None:
    return None if values is None else values * factor


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


@torch.no_grad()
def widen(network: nn.Module, site: Site, units: NewUnits) -> list[Replacement]:
    """Append the units to the site, in place; old weights keep their values and positions.

    New BatchNorm channels get weight 1, the units' offset as bias (or the units' own affine values)
    and running statistics 0 and 1: measure them with `measure_running_statistics` before any
    evaluation.

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
    replaced = [_grow(first, "weight", units.fan_in, 0), _grow(second, "weight", units.fan_out, 1)]
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
        replaced += _widen_norm(norm, units)
    return replaced


def _widen_norm(norm: nn.Module, units: NewUnits) -> list[Replacement]:
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    count = len(units)
    norm.num_features += count
    replaced = []
    if norm.affine:
        weight, bias = units.norm_weight, units.norm_bias
        if weight is None or bias is None:
            weight = norm.weight.new_ones(count)
            bias = norm.bias.new_full((count,), units.offset)
        replaced.append(_grow(norm, "weight", weight, 0))
        replaced.append(_grow(norm, "bias", bias, 0))
    if norm.running_mean is not None and norm.running_var is not None:
        mean, variance = norm.running_mean, norm.running_var
        norm.running_mean = torch.cat([mean, mean.new_zeros(count)])
        norm.running_var = torch.cat([variance, variance.new_ones(count)])
    return replaced


def _grow(module: nn.Module, name: str, addition: torch.Tensor, dim: int) -> Replacement:
    old = module.get_parameter(name)
    wider = torch.cat([old.detach(), addition.to(old.device, old.dtype)], dim)
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
