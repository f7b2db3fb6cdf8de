"""Which new neurons are worth their place: first-order gains on images that did not make them."""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import batch_statistics
from tinygrow.growth.surgery import NewUnits, widen
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32


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
    trial = copy.deepcopy(network)
    widen(trial, site, units.scaled(1.0, 0.0))
    _, second = site.layers(trial)
    gains = []
    with batch_statistics(trial), full_float32(), torch.enable_grad():
        for images, labels in batches:
            loss = F.cross_entropy(trial(images), labels, label_smoothing=label_smoothing)
            (gradient,) = torch.autograd.grad(loss, second.weight)
            products = (gradient[:, -len(units) :] * units.fan_out).double()
            gains.append(-products.transpose(0, 1).flatten(1).sum(1))
    table = torch.stack(gains)
    error = table.std(0) / math.sqrt(len(table))
    return table.mean(0) / error.clamp_min(1e-300)
