"""Widening a network: the only place where layers change their shape.

The network stays one of plain `torch.nn` modules: parameters are replaced by wider ones, module
attributes follow, and the replaced parameters are reported so that an optimiser can follow too.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from tinygrow.growth.bottleneck import Neurons
from tinygrow.growth.patches import Layer
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import batch_statistics
from tinygrow.training.batches import Batch
from tinygrow.training.optimizer import Replacement


@dataclass(frozen=True, slots=True)
class NewUnits:
    """Weights of K new hidden units, in the layers' own shapes.

    Attributes:
        fan_in: (K, C_in, kh, kw) or (K, in_features).
        bias: (K,), or None where the first layer has no bias.
        fan_out: (C_out, K, kh, kw) or (out_features, K).
    """

    fan_in: torch.Tensor
    bias: torch.Tensor | None
    fan_out: torch.Tensor

    def __len__(self) -> int:
        return len(self.fan_in)

    def scaled(self, fan_in: float, fan_out: float) -> "NewUnits":
        """Return units with fan-in (and bias) and fan-out multiplied."""
        bias = None if self.bias is None else self.bias * fan_in
        return NewUnits(self.fan_in * fan_in, bias, self.fan_out * fan_out)


def as_units(neurons: Neurons, first: Layer, second: Layer) -> NewUnits:
    """Reshape alpha (K, p) and omega (K, q * T) to the layers' weights, in their dtype."""
    alpha, omega = neurons.alpha.to(first.weight.dtype), neurons.omega.to(second.weight.dtype)
    bias = None
    if first.bias is not None:
        alpha, bias = alpha[:, :-1], alpha[:, -1]
    fan_in = alpha.reshape(-1, *first.weight.shape[1:])
    fan_out = omega.reshape(-1, second.weight.shape[0], *second.weight.shape[2:]).transpose(0, 1)
    return NewUnits(fan_in.contiguous(), bias, fan_out.contiguous())


@torch.no_grad()
def widen(network: nn.Module, site: Site, units: NewUnits) -> list[Replacement]:
    """Append the units to the site, in place; old weights keep their values and positions.

    New BatchNorm channels get weight 1, bias 0 and running statistics 0 and 1: measure them with
    `measure_running_statistics` before any evaluation.

    Args:
        network: holds the site.
        site: where.
        units: at least one; on the network's device.

    Returns:
        The replaced parameters, for the optimiser.
    """
    first, second = site.layers(network)
    count = len(units)
    replaced = [_grow(first, "weight", units.fan_in, 0), _grow(second, "weight", units.fan_out, 1)]
    if first.bias is not None:
        assert units.bias is not None
        replaced.append(_grow(first, "bias", units.bias, 0))
    if isinstance(first, nn.Conv2d):
        first.out_channels += count
    else:
        first.out_features += count
    if isinstance(second, nn.Conv2d):
        second.in_channels += count
    else:
        second.in_features += count
    if site.norm is not None:
        replaced += _widen_norm(network.get_submodule(site.norm), count)
    return replaced


def _widen_norm(norm: nn.Module, count: int) -> list[Replacement]:
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    norm.num_features += count
    replaced = []
    if norm.affine:
        replaced.append(_grow(norm, "weight", norm.weight.new_ones(count), 0))
        replaced.append(_grow(norm, "bias", norm.bias.new_zeros(count), 0))
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
