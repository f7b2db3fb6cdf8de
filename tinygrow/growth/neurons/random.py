"""Random directions: the control that has TINY's normalisation, sign and line search."""

import torch

from tinygrow.growth.bottleneck import Neurons
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.patches import patch_size, taps


def propose(request: Request) -> Proposal:
    """Draw fan-in and fan-out weights from a standard normal distribution."""
    site = request.site
    first, second = site.layers(request.network)
    fan_out = second.weight.shape[0] * taps(first, second)
    alpha = torch.randn(request.count, patch_size(first), generator=request.generator)
    omega = torch.randn(request.count, fan_out, generator=request.generator)
    device, none = first.weight.device, torch.empty(0, dtype=torch.float64)
    return Proposal(neurons=Neurons(alpha.to(device), omega.to(device), none, none))
