"""Is a gain more than chance? Neurons of one sample are tried on images that they have not seen.

To first order an image's loss falls by g_i = <V_i, delta_i>, with V_i its desired update (tiny.md
1.2) and delta_i what the new neurons add there (1.1). Neurons fitted to noise have a mean g of zero
on other images, however large their singular values are.

The g_i are taken as independent. BatchNorm on mini-batch statistics couples the images of a batch
so that their sum varies less than that, and the test is stricter than its level says: at 10 %,
noise passed for a gain in 2 % of 300 trials (a network of two residual blocks, batches of 32).
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import nn

from tinygrow.growth.amplitude import Trial
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import batch_statistics, desired_update, rows_of
from tinygrow.growth.surgery import NewUnits
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32


def standard_errors(gains: torch.Tensor) -> float:
    """Return the mean of independent gains in units of its standard error; 0 without any spread.

    Args:
        gains: (n,) with n of 2 at least.
    """
    gains = gains.double()
    error = float(gains.std()) / math.sqrt(len(gains))
    return float(gains.mean()) / error if error > 0 else 0.0


def threshold(z: float, sites: int) -> float:
    """Return the standard errors that each of several sites must reach.

    The one-sided level of `z` is divided by the number of sites (Bonferroni), so that some site
    out of many is not taken for significant by chance more often than a single one would be.
    """
    normal = NormalDist()
    return -normal.inv_cdf(normal.cdf(-z) / sites)


def image_gains(
    network: nn.Module,
    site: Site,
    units: NewUnits,
    batches: Sequence[Batch],
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return g_i for every image, in nats: (n,) float64 on the CPU.

    Args:
        network: without the units; not changed.
        site: where.
        units: as large as they are to be tried.
        batches: images that the units were not fitted to.
        label_smoothing: that of the training loss.
    """
    trial = Trial(network, site, units).network
    gains = []
    for batch in batches:
        with batch_statistics(network):
            _, _, target = desired_update(network, site, batch, label_smoothing)
        added = _output(trial, site, batch) - _output(network, site, batch)
        # Of an image, what all of its positions or tokens gain.
        gains.append((target.double() * added.double()).reshape(len(batch[1]), -1).sum(1))
    return torch.cat(gains).cpu()


@torch.no_grad()
def _output(network: nn.Module, site: Site, batch: Batch) -> torch.Tensor:
    """Return the raw output of the site's second layer: maps, or rows."""
    kept: dict[str, torch.Tensor] = {}

    def keep(_: nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        kept["a"] = output.clone()  # what follows may overwrite it

    second = site.layers(network)[1]
    handle = second.register_forward_hook(keep)
    try:
        with batch_statistics(network), full_float32():
            network(batch[0])
    finally:
        handle.remove()
    return rows_of(second, kept["a"])
