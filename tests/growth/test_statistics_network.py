"""What measuring does to the network, and what it sees of it."""

import pytest
import torch
from torch import nn

from tests.growth.scenes import (
    EXACT,
    SITE,
    conv_pair,
    resnet,
    site_of,
)
from tinygrow.errors import TinygrowError
from tinygrow.growth.bottleneck import best_update
from tinygrow.growth.sites import sites_of
from tinygrow.growth.statistics import (
    batch_statistics,
    desired_update,
    neuron_moments,
    update_moments,
)

# A few hundred float64 products, summed in another order.
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


@pytest.mark.parametrize("training", [True, False])
def test_statistics_leave_no_trace_in_the_network(training: bool) -> None:
    network, architecture = resnet()
    network.train(training)
    network.stages[0].eval()
    modes = {name: module.training for name, module in network.named_modules()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    batch = (torch.randn(6, 3, 8, 8), torch.randint(3, (6,)))

    for site in sites_of(architecture):
        moments = update_moments(network, site, [batch], EXACT)
        neuron_moments(network, site, [batch], best_update(moments.S1, moments.M, 1e-6), EXACT)

    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert getattr(module, "track_running_stats", True)


def test_hooks_and_modes_are_restored_after_an_error() -> None:
    network, (x, _) = conv_pair(normed=True)
    network.train()

    with pytest.raises(ValueError, match="99"), batch_statistics(network):
        desired_update(network, site_of(network), (x, torch.zeros(99, dtype=torch.int64)))

    assert network.norm.training
    assert network.norm.track_running_stats
    assert not network.first._forward_pre_hooks
    assert not network.second._forward_hooks


def test_batch_norm_sees_the_mini_batch_whatever_its_running_statistics() -> None:
    network, batch = conv_pair(normed=True)
    before = neuron_moments(network, site_of(network), [batch], None, EXACT)
    network.norm.running_mean.fill_(7.0)
    network.norm2.running_var.fill_(9.0)

    network.eval()
    after = neuron_moments(network, site_of(network), [batch], None, EXACT)

    torch.testing.assert_close(before.N, after.N, rtol=0, atol=0)


def test_channels_last_memory_gives_the_same_moments() -> None:
    network, (x, y) = conv_pair()
    plain = neuron_moments(network, SITE, [(x, y)], None, EXACT)
    network.to(memory_format=torch.channels_last)

    last = neuron_moments(
        network, SITE, [(x.contiguous(memory_format=torch.channels_last), y)], None, EXACT
    )

    torch.testing.assert_close(plain.S, last.S, **CLOSE)
    torch.testing.assert_close(plain.N, last.N, **CLOSE)


def test_a_layer_that_growth_cannot_read_is_refused() -> None:
    network, batch = conv_pair()
    network.second = nn.Conv2d(3, 3, 3, padding=1, groups=3).double()

    with pytest.raises(TinygrowError, match="groups=3"):
        neuron_moments(network, SITE, [batch], None, EXACT)
