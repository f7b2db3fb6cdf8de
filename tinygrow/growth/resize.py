"""A network's widths set to any number, and units taken out of it.

A network of the user's gets its widths here, and compression takes units out. Widening with new
neurons, as growth does, is `tinygrow.growth.surgery`.
"""

import math

import torch
from torch import nn

from tinygrow.growth.patches import Layer
from tinygrow.growth.sites import Site


@torch.no_grad()
def resize(network: nn.Module, site: Site, width: int) -> None:
    """Set the width of a site, in place.

    A narrower width keeps the first units; what reads them is scaled by the root of the old width
    over the new one, so that its outputs keep their variance (units of independent, random
    weights). A wider one repeats units that nothing reads yet, so that the function is kept.

    Args:
        network: holds the site.
        site: where.
        width: at least 1.
    """
    first, second = site.layers(network)
    old, columns = first.weight.shape[0], second.weight.shape[1]
    if width == old:
        return
    narrow(network, site, torch.arange(width, device=first.weight.device) % old)
    if width < old:
        second.weight *= math.sqrt(old / width)
    else:
        second.weight[:, columns:] = 0.0


@torch.no_grad()
def narrow(network: nn.Module, site: Site, kept: torch.Tensor) -> None:
    """Keep some units of a site, in place; their weights stay as they are, bit by bit.

    Args:
        network: holds the site.
        site: where.
        kept: int64 indices of the units, at least one, in the order that they get; one that is
            named twice is there twice.
    """
    first, second = site.layers(network)
    old = first.weight.shape[0]
    keep_outputs(first, kept)
    for name in site.norms:
        norm = network.get_submodule(name)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        features = _repeated(kept, norm.num_features // old)
        norm.num_features = len(features)
        _select(norm, ("weight", "bias", "running_mean", "running_var"), 0, features)
    keep_inputs(second, kept, old)


@torch.no_grad()
def keep_outputs(layer: Layer, kept: torch.Tensor) -> None:
    """Keep some of the units that a layer writes, in place, with their biases.

    Args:
        layer: convolution or linear.
        kept: int64 indices of units.
    """
    _select(layer, ("weight", "bias"), 0, kept)
    if isinstance(layer, nn.Conv2d):
        layer.out_channels = len(kept)
    else:
        layer.out_features = len(kept)


@torch.no_grad()
def keep_inputs(layer: Layer, kept: torch.Tensor, width: int) -> None:
    """Keep some of the units that a layer reads, in place.

    Args:
        layer: convolution or linear; a linear one that reads flattened maps has several columns a
            unit.
        kept: int64 indices of units.
        width: units that it has read so far.
    """
    columns = _repeated(kept, layer.weight.shape[1] // width)
    _select(layer, ("weight",), 1, columns)
    if isinstance(layer, nn.Conv2d):
        layer.in_channels = len(columns)
    else:
        layer.in_features = len(columns)


def _repeated(kept: torch.Tensor, count: int) -> torch.Tensor:
    """Return the features of the kept units, `count` neighbours each."""
    return (kept[:, None] * count + torch.arange(count, device=kept.device)).flatten()


def _select(module: nn.Module, names: tuple[str, ...], dim: int, kept: torch.Tensor) -> None:
    """Take the entries `kept` of a module's tensors, of those that it has."""
    for name in names:
        old = getattr(module, name)
        if old is None:
            continue
        new = old.index_select(dim, kept)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        setattr(module, name, new)
