"""The sign of each new neuron by its own first-order gain (tiny.md 1.5 e).

(alpha, omega) and (-alpha, -omega) are the same to a linear layer, but not behind an activation of
two slopes: they look at opposite half-spaces. With units of both signs in the network and no
fan-out yet, one pass gives the gain of all of them: a fan-out omega_k changes the loss at the rate
-<V, omega_k sigma(alpha_k b)>, which is the gradient of the fan-out weights times omega_k.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.distributed import of_first
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import batch_statistics
from tinygrow.growth.surgery import NewUnits, widen
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32


def both_signs(units: NewUnits) -> NewUnits:
    """Return 2K units: the K as they are, then the K with the other sign."""
    other = units.signed(torch.full((len(units),), -1.0, device=units.fan_in.device))
    return joined(units, other)


def joined(units: NewUnits, others: NewUnits) -> NewUnits:
    """Return all units, one after the other; both have the same parts."""

    def both(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
        return None if a is None or b is None else torch.cat([a, b])

    return replace(
        units,
        fan_in=torch.cat([units.fan_in, others.fan_in]),
        bias=both(units.bias, others.bias),
        fan_out=torch.cat([units.fan_out, others.fan_out], 1),
        norm_weight=both(units.norm_weight, others.norm_weight),
        norm_bias=both(units.norm_bias, others.norm_bias),
    )


def neuron_signs(
    network: nn.Module,
    site: Site,
    units: NewUnits,
    batch: Batch,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return (K,): +1 or -1, the sign of the larger first-order gain of each unit.

    Args:
        network: before the extension; not changed.
        site: where.
        units: at amplitude factor 1.
        batch: training images.
        label_smoothing: that of the training loss.
    """
    gains = first_order_gains(network, site, both_signs(units), [batch], label_smoothing)
    plus, minus = gains[0].split(len(units))
    # Behind a linear activation they differ by rounding alone, and not alike in all processes.
    return of_first(torch.where(plus >= minus, 1.0, -1.0))


def first_order_gains(
    network: nn.Module,
    site: Site,
    units: NewUnits,
    batches: Iterable[Batch],
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return (batches, K): the gain (1/n) sum <V, omega_k sigma(alpha_k b)> on each mini-batch.

    Args:
        network: before the extension; not changed.
        site: where.
        units: the gain is linear in their fan-out.
        batches: training images.
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
            products = (gradient[:, -units.columns.shape[1] :] * units.columns).double()
            by_unit = products.reshape(units.fan_out.shape).transpose(0, 1)
            gains.append(-by_unit.flatten(1).sum(1))
    return torch.stack(gains)
