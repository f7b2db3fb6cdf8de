import torch

from tests.growth.scenes import conv_pair, linear_pair, site_of
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.neurons.random import propose
from tinygrow.growth.surgery import as_units
from tinygrow.settings.growth import GrowthSettings


def proposed(kind: str, count: int, seed: int) -> Proposal:
    network, _ = linear_pair() if kind == "linear" else conv_pair()

    def sample(_: int) -> list:
        raise AssertionError("random neurons look at no image")

    return propose(
        Request(
            network=network,
            site=site_of(network),
            count=count,
            sample=sample,
            available=10,
            settings=GrowthSettings(method="random"),
            generator=torch.Generator().manual_seed(seed),
        )
    )


def test_random_neurons_fit_the_layers_and_look_at_no_image() -> None:
    for kind, fan_in, fan_out in (("linear", 5 + 1, 6), ("conv", 2 * 9 + 1, 4 * 9)):
        proposal = proposed(kind, 7, seed=0)

        assert proposal.neurons.alpha.shape == (7, fan_in)
        assert proposal.neurons.omega.shape == (7, fan_out)
        assert proposal.bottleneck is None
        assert proposal.images == 0
        network, _ = linear_pair() if kind == "linear" else conv_pair()
        assert len(as_units(proposal.neurons, network.first, network.second)) == 7


def test_random_neurons_are_standard_normal_and_follow_the_generator() -> None:
    first, again, other = (proposed("conv", 100, seed).neurons for seed in (0, 0, 1))

    assert torch.equal(first.alpha, again.alpha)
    assert torch.equal(first.omega, again.omega)
    assert not torch.equal(first.alpha, other.alpha)
    for weights in (first.alpha, first.omega):
        # 1,900 and 3,600 draws: standard errors of mean and deviation are below 0.025.
        assert abs(float(weights.mean())) < 0.1
        assert abs(float(weights.std()) - 1) < 0.1
