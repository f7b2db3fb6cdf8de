"""Random fan-in, no fan-out yet: new neurons that leave the function as it is.

The fan-out has a gradient at once, the fan-in from the second step on.
"""

from tinygrow.growth.neurons.initial import fan_in_like, zero_bias
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.surgery import NewUnits, as_neurons, fan_out_of


def propose(request: Request) -> Proposal:
    """Draw the fan-in as large as the layer's own; look at no image."""
    first, second = request.site.layers(request.network)
    fan_out = fan_out_of(first, second)
    units = NewUnits(
        fan_in=fan_in_like(first, request.count, request.generator),
        bias=zero_bias(first, request.count),
        fan_out=fan_out.new_zeros(len(fan_out), request.count, *fan_out.shape[2:]),
    )
    return Proposal(neurons=as_neurons(units), settled=units, keeps_function=True)
