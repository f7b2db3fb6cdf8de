"""A network's growable width set to any number: how a network of the user's gets its widths.

Widening with new neurons, as growth does, is `tinygrow.growth.surgery`.
"""

import math

import torch
from torch import nn

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
    old = first.weight.shape[0]
    if width == old:
        return
    kept = torch.arange(width, device=first.weight.device) % old
    _select(first, ("weight", "bias"), kept)
    for name in site.norms:
        norm = network.get_submodule(name)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        features = _repeated(kept, norm.num_features // old)
        norm.num_features = len(features)
        _select(norm, ("weight", "bias", "running_mean", "running_var"), features)
    columns = _repeated(kept, 1)
    if isinstance(second, nn.Linear):
        columns = _repeated(kept, second.in_features // old)
    weight = second.weight.index_select(1, columns)
    if width < old:
        weight *= math.sqrt(old / width)
    else:
        weight[:, second.weight.shape[1] :] = 0.0
    second.weight = nn.Parameter(weight, requires_grad=second.weight.requires_grad)
    if isinstance(first, nn.Conv2d):
        first.out_channels = width
    else:
        first.out_features = width
    if isinstance(second, nn.Conv2d):
        second.in_channels = width
    else:
        second.in_features = len(columns)


def _repeated(kept: torch.Tensor, count: int) -> torch.Tensor:
    """Return the features of the kept units, `count` neighbours each."""
    return (kept[:, None] * count + torch.arange(count, device=kept.device)).flatten()


def _select(module: nn.Module, names: tuple[str, ...], kept: torch.Tensor) -> None:
    """Take the entries `kept` of a module's tensors, of those that it has."""
    for name in names:
        old = getattr(module, name)
        if old is None:
            continue
        new = old.index_select(0, kept)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        setattr(module, name, new)
