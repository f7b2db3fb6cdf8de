"""Widening a network: the only place where layers change their shape.

The network stays one of plain `torch.nn` modules: parameters are replaced by wider ones, module
attributes follow, and the replaced parameters are reported so that an optimiser can follow too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from tinygrow.distributed import share, total
from tinygrow.errors import TinygrowError
from tinygrow.growth.bottleneck import Neurons
from tinygrow.growth.patches import Layer, taps
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
        norm_weight: (K,) of the normalisation between the layers, in place of ones.
        norm_bias: (K,), in place of the offset; both or neither.
    """

    fan_in: torch.Tensor
    bias: torch.Tensor | None
    fan_out: torch.Tensor
    offset: float = 0.0
    rescale: torch.Tensor | None = None
    copies: Copies | None = None
    norm_weight: torch.Tensor | None = None
    norm_bias: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.fan_in)

    @property
    def columns(self) -> torch.Tensor:
        """The fan-out as the columns of the second layer's weight, channel-major."""
        return self.fan_out.flatten(1) if self.fan_out.ndim == 3 else self.fan_out

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

    def leading(self, count: int) -> "NewUnits":
        """Return the first units; copies share what they are copies of and stay together."""
        assert self.copies is None and self.rescale is None
        return replace(
            self,
            fan_in=self.fan_in[:count],
            bias=_first(self.bias, count),
            fan_out=self.fan_out[:, :count],
            norm_weight=_first(self.norm_weight, count),
            norm_bias=_first(self.norm_bias, count),
        )

    def layer_bias(self, site: Site) -> torch.Tensor | None:
        """Return the bias of the widened layer: with the offset, unless a norm would undo it."""
        if self.bias is None or site.norms:
            return self.bias
        return self.bias + self.offset


def _times(values: torch.Tensor | None, factor: float | torch.Tensor) -> torch.Tensor | None:
    return None if values is None else values * factor


def _first(values: torch.Tensor | None, count: int) -> torch.Tensor | None:
    return None if values is None else values[:count]


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
    read = second.weight.shape[2:] if isinstance(second, nn.Conv2d) else (taps(first, second),)
    fan_out = omega.reshape(-1, second.weight.shape[0], *read).transpose(0, 1)
    if isinstance(second, nn.Linear) and isinstance(first, nn.Linear):
        fan_out = fan_out.squeeze(2)
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
    units' offset as bias (or the units' own affine values) and running statistics 0 and 1: measure
    them with `measure_running_statistics` before any evaluation. Those of copies take all of it
    over.

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
    count, width = len(units), first.weight.shape[0]
    # What the last norm adds is what the activation behind it reads.
    last = site.norms[-1] if site.norms else site.first
    if units.offset and network.get_submodule(last).bias is None:
        raise TinygrowError(
            f"{last} has no bias, which new units without fan-in need to learn;"
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
        second.in_features += units.columns.shape[1]
    for name in site.norms:
        norm = network.get_submodule(name)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        # One behind a flattened map has as many features a unit as the map has positions.
        replaced += _widen_norm(norm, units, norm.num_features // width)
    return replaced


def _widen_norm(
    norm: nn.modules.batchnorm._BatchNorm, units: NewUnits, each: int
) -> list[Replacement]:
    norm.num_features += len(units) * each

    def channels(old: torch.Tensor, value: float) -> torch.Tensor:
        if units.copies is None:
            return old.new_full((len(units) * each,), value)
        return old.detach().unflatten(0, (-1, each))[units.copies.source].flatten()

    replaced = []
    if norm.affine:
        weight, bias = units.norm_weight, units.norm_bias
        if weight is None or bias is None:
            weight, bias = channels(norm.weight, 1.0), channels(norm.bias, units.offset)
        replaced.append(_grow(norm, "weight", weight, 0))
        replaced.append(_grow(norm, "bias", bias, 0))
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
    chosen = None if only is None else only[0].norms
    if chosen == ():
        return
    width = 1 if only is None else only[0].layers(network)[0].weight.shape[0]
    measured = {
        norm: _Moments()
        for name, norm in network.named_modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and norm.running_mean is not None
        and (chosen is None or name in chosen)
    }
    looked_at = 0
    handles = [norm.register_forward_pre_hook(add) for norm, add in measured.items()]
    try:
        with batch_statistics(network):
            for images, _ in share(batches):
                network(images)
                looked_at += len(images)
    finally:
        for handle in handles:
            handle.remove()
    _, sums = total(looked_at, lambda: [moments.result() for moments in measured.values()])
    for norm, summed in zip(measured, sums, strict=True):
        assert norm.running_mean is not None and norm.running_var is not None
        mean, variance = _mean_and_variance(summed)
        first = 0 if only is None else len(mean) - only[1] * (len(mean) // width)
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

    def result(self) -> torch.Tensor:
        """Return (3, channels): sums, sums of squares, and of how many values each."""
        assert self.sums is not None
        return torch.cat([self.sums, torch.full_like(self.sums[:1], self.count)])


def _mean_and_variance(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    count = sums[2]
    mean, square = sums[:2] / count
    variance = (square - mean.square()).clamp_min(0.0)
    return mean, variance * (count / (count - 1).clamp_min(1.0))
