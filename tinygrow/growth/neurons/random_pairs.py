"""Random neurons in pairs that cancel out: (V, V) as fan-in, (Z, -Z) as fan-out.

The pairing of variance transfer (Yuan, Savarese, Maire 2023; tiny.md section 4): new weights are as
large as the old, and yet the function is kept. The two of a pair part with the first step, as the
gradients of their fan-in have opposite signs. An odd neuron has a fan-out of zero.
"""

import torch

from tinygrow.growth.neurons.initial import fan_in_like, fan_out_like, zero_bias
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.surgery import NewUnits, as_neurons


def propose(request: Request) -> Proposal:
    """Draw both as large as the layers' own; look at no image."""
    first, second = request.site.layers(request.network)
    pairs, odd = divmod(request.count, 2)
    V = fan_in_like(first, pairs + odd, request.generator)
    Z = fan_out_like(first, second, pairs, request.generator)
    units = NewUnits(
        fan_in=torch.cat([V, V[:pairs]]),
        bias=zero_bias(first, request.count),
        fan_out=torch.cat([Z, Z.new_zeros(len(Z), odd, *Z.shape[2:]), -Z], 1),
    )
    return Proposal(neurons=as_neurons(units), settled=units, keeps_function=True)
