"""Net2Wider: what a copy is, and what tells it from the neuron it copies."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.growth.neurons.scenes import request, trained
from tests.growth.scenes import conv_pair, linear_pair, quick_settings, site_of
from tinygrow.growth.extend import extend
from tinygrow.growth.neurons.net2wider import propose
from tinygrow.growth.sites import sites_of
from tinygrow.growth.surgery import Copies, copied_units, widen
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.methods import MethodsSettings, Net2WiderSettings
from tinygrow.settings.training import TrainingSettings


def settings_with(noise: float, **changes: object) -> GrowthSettings:
    methods = MethodsSettings(net2wider=Net2WiderSettings(noise=noise))
    return quick_settings(method="net2wider", methods=methods, **changes)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["linear", "conv", "normed"])
def test_copies_share_the_fan_out_of_the_neuron_they_copy(kind: str, noise: float) -> None:
    network, (x, y) = linear_pair() if kind == "linear" else conv_pair(normed=kind == "normed")
    if kind == "normed":
        for parameter in network.norm.parameters():
            nn.init.normal_(parameter)
    network(x)  # gives running statistics
    old, x = network.first.weight.shape[0], 2.0 * x  # of which these images have others
    site, wide = site_of(network), copy.deepcopy(network)
    proposal = propose(request(network, site, (x, y), settings_with(noise), count=5))
    assert proposal.settled is not None and proposal.settled.copies is not None
    source = proposal.settled.copies.source.tolist()

    widen(wide, site, proposal.settled)

    for name in (
        "first.weight",
        "first.bias",
        *(["norm.weight", "norm.bias"] * (kind == "normed")),
    ):
        now, then = wide.get_parameter(name), network.get_parameter(name)
        assert torch.equal(now, torch.cat([then, then[source]])), name
    assert set(source) <= set(range(old))
    whole, parts = network.second.weight, wide.second.weight
    for unit in range(old):
        group = [unit] + [old + k for k, copied in enumerate(source) if copied == unit]
        torch.testing.assert_close(parts[:, group].sum(1), whole[:, unit])
        shares = parts[:, group] / whole[:, [unit]]
        if noise == 0.0:
            torch.testing.assert_close(shares, torch.full_like(shares, 1 / len(group)))
        elif len(group) > 1:
            assert (shares > 0).all()
            assert shares.transpose(0, 1).flatten(1)[:, 0].diff().abs().min() > 1e-3
    for training in (True, False):
        torch.testing.assert_close(
            wide.train(training)(x), network.train(training)(x), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_noise_on_the_shares_parts_twins(noise: float) -> None:
    training = TrainingSettings(batch_size=16, learning_rate=0.05, momentum=0.0)
    settings = settings_with(noise, training=training)
    trainer, architecture = trained("resnet", settings)
    site = sites_of(architecture)[0]

    done = extend(
        trainer.network, site, 2, trainer, settings, generator=torch.Generator().manual_seed(0)
    )
    trainer.train(2.0)

    assert done.proposal.settled is not None and done.proposal.settled.copies is not None
    first = site.layers(trainer.network)[0].weight.detach().flatten(1)
    for k, unit in enumerate(done.proposal.settled.copies.source.tolist()):
        distance = float((first[2 + k] - first[unit]).norm() / first[unit].norm())
        assert (distance > 3e-3) == (noise > 0.0), distance
        assert noise or distance < 1e-5  # rounding


def test_the_moving_average_copies_its_own_neurons() -> None:
    settings = settings_with(0.1)
    settings = replace(settings, training=replace(settings.training, ema=0.9))
    trainer, architecture = trained("resnet", settings)
    site = sites_of(architecture)[0]

    done = extend(trainer.network, site, 3, trainer, settings, generator=torch.Generator())

    assert trainer.average is not None and done.proposal.settled is not None
    assert done.proposal.settled.copies is not None
    source = done.proposal.settled.copies.source
    for network in (trainer.network, trainer.average):
        first = site.layers(network)[0].weight
        assert torch.equal(first[2:], first[source])
    live, average = (site.layers(n)[0].weight for n in (trainer.network, trainer.average))
    assert not torch.equal(live, average)


def test_copies_of_a_channel_that_is_flattened_take_over_each_of_its_positions() -> None:
    first, second = nn.Conv2d(2, 3, 1), nn.Linear(3 * 4, 5)
    copies = Copies(torch.tensor([1, 1]), torch.tensor([0.25, 0.5]))
    rescale = torch.tensor([1.0, 0.25, 1.0])
    x = torch.randn(7, 2, 2, 2)

    units = copied_units(first, second, copies, rescale)

    assert units.fan_out.shape == (5, 2, 4)
    h = torch.cat([first(x), F.conv2d(x, units.fan_in, units.bias)], 1).flatten(1)
    kept = second.weight * rescale.repeat_interleave(4)
    outputs = F.linear(h, torch.cat([kept, units.columns], 1), second.bias)
    torch.testing.assert_close(outputs, second(first(x).flatten(1)))
