"""Net2Wider: copies of existing neurons, among which their fan-out is divided (tiny.md section 4).

Chen, Goodfellow, Shlens 2016. A copy takes over the fan-in and its channel of the normalisation, so
that its activations are those of the neuron it copies, whatever statistics are used; the shares of
the fan-out sum to one, so that the function is kept. With equal shares copies would stay twins. The
noise against that is on the shares and not on the fan-in, so that it costs nothing (as LEMON does).
"""

import torch

from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.surgery import Copies, as_neurons, copied_units


def propose(request: Request) -> Proposal:
    """Choose the neurons to be copied at random; look at no image."""
    first, second = request.site.layers(request.network)
    old, generator = first.weight.shape[0], request.generator
    source = torch.randint(old, (request.count,), generator=generator)
    everyone = torch.cat([torch.arange(old), source])
    noise = request.settings.methods.net2wider.noise
    parts = 1.0 + noise * torch.randn(len(everyone), generator=generator, dtype=torch.float64)
    # What has no copy keeps all. Elsewhere no part may vanish or sums come near zero.
    parts = parts.clamp_min(0.1)
    share = parts / torch.zeros(old, dtype=torch.float64).index_add(0, everyone, parts)[everyone]
    device = first.weight.device
    copies = Copies(source.to(device), share[old:].to(device))
    units = copied_units(first, second, copies, share[:old].to(device))
    return Proposal(neurons=as_neurons(units), settled=units, keeps_function=True)
