"""Which new neurons are worth their place: first-order gains on images that did not make them."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from tinygrow.growth.signs import first_order_gains
from tinygrow.growth.sites import Site
from tinygrow.growth.surgery import NewUnits
from tinygrow.training.batches import Batch


def gain_scores(
    network: nn.Module,
    site: Site,
    units: NewUnits,
    batches: Sequence[Batch],
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return (K,): each neuron's mean first-order gain in units of its standard error.

    The gain (1/n) sum <V, omega_k sigma(alpha_k b)> is taken of each mini-batch; their spread gives
    the error.

    Args:
        network: before the extension; not changed.
        site: where.
        units: with the sign that they will have; their scale does not matter.
        batches: at least two mini-batches, of images that did not choose the units.
        label_smoothing: that of the training loss.
    """
    table = first_order_gains(network, site, units, batches, label_smoothing)
    error = table.std(0) / math.sqrt(len(table))
    return table.mean(0) / error.clamp_min(1e-300)
