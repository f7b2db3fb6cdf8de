"""Statistics of several sites from one pass, against those of each site alone."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.growth.scenes import EXACT, SITE, PairNet, conv_pair, perceptron, resnet
from tinygrow.growth.bottleneck import best_update
from tinygrow.growth.sites import Site, sites_of
from tinygrow.growth.statistics import (
    desired_update,
    neuron_moments,
    neuron_moments_of,
    update_moments,
    update_moments_of,
)

CLOSE = {"rtol": 1e-11, "atol": 1e-12}


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
@pytest.mark.parametrize("order", [1, -1])
def test_sites_measured_together_are_those_measured_alone(kind: str, order: int) -> None:
    # In the perceptron the second layer of one site is the first of the next.
    network, architecture = resnet(middle=(3, 5)) if kind == "resnet" else perceptron((4, 5, 3))
    network.double()
    sites = sites_of(architecture)[::order]
    batches = [
        (torch.randn(n, 3, 8, 8, dtype=torch.float64), torch.randint(3, (n,))) for n in (5, 4)
    ]
    passes: list[int] = []
    handle = network.register_forward_hook(lambda *_: passes.append(1))
    update = update_moments_of(network, sites, batches, EXACT, 0.1)
    # One site is projected on nothing.
    deltas = [best_update(one.S1, one.M, 1e-6) for one in update[1:]]
    neurons = neuron_moments_of(network, sites, batches, [None, *deltas], EXACT, 0.1)
    assert len(passes) == 4  # two mini-batches, twice
    handle.remove()

    for site, delta, one, pair in zip(sites, [None, *deltas], update, neurons, strict=True):
        alone = update_moments(network, site, batches, EXACT, 0.1)
        torch.testing.assert_close(one.S1, alone.S1, **CLOSE)
        torch.testing.assert_close(one.M, alone.M, **CLOSE)
        assert one.power == pytest.approx(alone.power, rel=1e-12)
        single = neuron_moments(network, site, batches, delta, EXACT, 0.1)
        torch.testing.assert_close(pair.S, single.S, **CLOSE)
        torch.testing.assert_close(pair.N, single.N, **CLOSE)
        assert one.images == pair.images == 9


def test_only_N_is_measured_where_no_gram_is_asked_for() -> None:
    network, architecture = resnet(middle=(3, 5))
    sites = sites_of(architecture)
    batch = torch.randn(4, 3, 8, 8), torch.randint(3, (4,))
    found = neuron_moments_of(network, sites, [batch], [None, None], EXACT, gram=False)
    assert [one.S.numel() for one in found] == [0, 0]
    assert all(one.N.abs().max() > 0 for one in found)


class _Overwriting(PairNet):
    """The same network with an activation that overwrites the output of `second`."""

    def tail(self, a: torch.Tensor) -> torch.Tensor:
        return self.head(a.tanh_().flatten(1))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_output_may_be_overwritten_and_the_weights_frozen(frozen: bool) -> None:
    network, batch = conv_pair()
    plain = PairNet(network.first, network.second, batch[0])
    overwriting = _Overwriting(network.first, network.second, batch[0])
    overwriting.load_state_dict(plain.state_dict())
    overwriting.requires_grad_(not frozen)
    for one, other in zip(
        desired_update(plain, SITE, batch), desired_update(overwriting, SITE, batch), strict=True
    ):
        torch.testing.assert_close(one, other, **CLOSE)


def test_an_earlier_site_is_reached_through_an_overwritten_output_of_a_later_one() -> None:
    # conv - tanh_ - conv - tanh_ - conv: the middle convolution belongs to both sites.
    torch.manual_seed(0)
    layers: list[Any] = [nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 2, 3)]

    class Chain(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.a, self.first, self.second = layers
            self.act = torch.tanh_ if in_place else torch.tanh

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.act(self.first(self.act(self.a(x))))
            return self.act(self.second(hidden)).mean((2, 3))

    earlier = Site(depth=1, index=0, first="a", norm=None, second="first")
    batch = torch.randn(3, 2, 8, 8, dtype=torch.float64), torch.randint(2, (3,))
    plain, overwriting = Chain(False).double(), Chain(True).double()
    together = update_moments_of(overwriting, [SITE, earlier], [batch], EXACT)
    for site, one in zip([SITE, earlier], together, strict=True):
        alone = update_moments(plain, site, [batch], EXACT)
        torch.testing.assert_close(one.M, alone.M, **CLOSE)
        torch.testing.assert_close(one.S1, alone.S1, **CLOSE)
