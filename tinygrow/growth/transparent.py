"""BatchNorm made transparent for new channels.

Between the two layers of a site a normalisation takes mean and scale off what the closed form
expects to pass as it is (tiny.md, pitfall 4). With weight sqrt(variance + eps) and bias mean, of
the new pre-activations, it is the identity for them: on the images of the measurement, and, with
the same running statistics, in evaluation mode.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from tinygrow.growth.sites import Site
from tinygrow.growth.surgery import NewUnits, measure_running_statistics, widen
from tinygrow.training.batches import Batch


@torch.no_grad()
def transparent(
    network: nn.Module, site: Site, units: NewUnits, batches: Sequence[Batch]
) -> NewUnits:
    """Return the units with affine values that undo the site's normalisation.

    Args:
        network: before the extension; not changed.
        site: where; unless one per-channel affine normalisation stands there, behind no flattening,
            the units come back as they are.
        units: with the fan-in that they will have.
        batches: of the measurement; running statistics measured on them later are the same.
    """
    if site.norm is None or site.further_norms:
        return units
    trial = copy.deepcopy(network)
    widen(trial, site, units.scaled(1.0, 0.0))
    norm = trial.get_submodule(site.norm)
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    width = site.layers(trial)[0].weight.shape[0]
    if norm.num_features != width or not norm.affine:
        return units
    if norm.running_mean is None or norm.running_var is None:
        return units
    measure_running_statistics(trial, batches, (site, len(units)))
    new = slice(-len(units), None)
    weight = (norm.running_var[new] + norm.eps).sqrt()
    return replace(units, norm_weight=weight, norm_bias=norm.running_mean[new].clone())
