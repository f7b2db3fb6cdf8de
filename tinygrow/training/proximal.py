"""Proximal l1: weights that come to be exactly zero, so that units provably stop to matter.

After a step of length r, the penalty l1 sum |w| moves each weight by its proximal operator, soft
thresholding: w becomes sign(w) max(|w| - r l1, 0). A subgradient, which the paper of exact
compression uses, only comes near to zero (exact_compression.md, sections 2 and 4.7).
"""

from dataclasses import dataclass

import torch
from torch import nn

from tinygrow.networks.tracing import BatchNorm
from tinygrow.settings.training import InducementSettings


@dataclass(frozen=True, slots=True)
class Penalised:
    """The parameters of one network that are shrunk.

    Attributes:
        scales: of BatchNorm.
        shifts: of the same; each is shrunk where its scale is zero, as such a channel gives its
            shift at every position, and only with a shift of zero nothing at all.
        weights: of dense layers.
    """

    scales: list[torch.Tensor]
    shifts: list[torch.Tensor]
    weights: list[torch.Tensor]

    @classmethod
    def of(cls, network: nn.Module, settings: InducementSettings) -> "Penalised":
        """Collect what `settings` penalise."""
        modules = list(network.modules())
        norms = [m for m in modules if isinstance(m, BatchNorm) and m.affine]
        dense = [m for m in modules if isinstance(m, nn.Linear)]
        norms, dense = norms if settings.l1_norm else [], dense if settings.l1_weights else []
        return cls(
            [m.weight.detach() for m in norms],
            [m.bias.detach() for m in norms],
            [m.weight.detach() for m in dense],
        )


@torch.no_grad()
def shrink(network: nn.Module, settings: InducementSettings, rate: float) -> None:
    """Apply the proximal operator of the penalties once, in place.

    Args:
        network: after a step of its optimiser.
        settings: the penalties.
        rate: learning rate of the step.
    """
    if not (settings.l1_norm or settings.l1_weights):
        return
    penalised = Penalised.of(network, settings)
    if penalised.scales:
        _threshold(penalised.scales, rate * settings.l1_norm)
        before = [shift.clone() for shift in penalised.shifts]
        _threshold(penalised.shifts, rate * settings.l1_norm)
        for scale, shift, old in zip(penalised.scales, penalised.shifts, before, strict=True):
            torch.where(scale == 0, shift, old, out=shift)
    if penalised.weights:
        _threshold(penalised.weights, rate * settings.l1_weights)


@torch.no_grad()
def copy_zeros(network: nn.Module, average: nn.Module, settings: InducementSettings) -> None:
    """Make zero in a moving average what is zero in the network.

    An average forgets a weight's past only in the limit; what is kept must be exactly zero.
    """
    if not (settings.l1_norm or settings.l1_weights):
        return
    now, kept = Penalised.of(network, settings), Penalised.of(average, settings)
    for new, old in ((now.scales, kept.scales), (now.weights, kept.weights)):
        for value, mean in zip(new, old, strict=True):
            mean.masked_fill_(value == 0, 0)
    for scale, shift, mean in zip(now.scales, now.shifts, kept.shifts, strict=True):
        mean.masked_fill_((scale == 0) & (shift == 0), 0)


def _threshold(values: list[torch.Tensor], by: float) -> None:
    """Move all values towards zero, and no further (soft thresholding)."""
    sizes = torch._foreach_abs(values)
    torch._foreach_sub_(sizes, by)
    torch._foreach_clamp_min_(sizes, 0.0)
    torch._foreach_mul_(sizes, torch._foreach_sign(values))
    torch._foreach_copy_(values, sizes)
