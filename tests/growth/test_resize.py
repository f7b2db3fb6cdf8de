import pytest
import torch
from torch import nn

from tests.growth.scenes import resnet
from tinygrow.growth.discovery import find_sites
from tinygrow.growth.resize import narrow, resize
from tinygrow.growth.sites import sites_of


def vgg() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(8 * 9, 6), nn.ReLU(), nn.Linear(6, 3)),
    )


def test_a_narrower_width_keeps_the_first_units_and_the_variance() -> None:
    torch.manual_seed(0)
    network, x = vgg(), torch.randn(2, 3, 8, 8)
    site = find_sites(network, x)[0]
    network[1].running_mean.copy_(torch.arange(8.0))
    weight, read = network[0].weight.clone(), network[5].weight.clone()

    resize(network, site, 2)

    assert torch.equal(network[0].weight, weight[:2])
    assert network[1].running_mean.tolist() == [0.0, 1.0]
    # The columns of the first two channels: nine positions each, scaled by the root of 8 / 2.
    torch.testing.assert_close(network[5].weight, read[:, :18] * 2)
    assert (network[0].out_channels, network[1].num_features, network[5].in_features) == (2, 2, 18)
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in network.parameters())
    assert network(x).shape == (2, 3)


@pytest.mark.parametrize("index", [0, 1])
def test_a_wider_width_keeps_the_function(index: int) -> None:
    torch.manual_seed(0)
    network, x = vgg().eval(), torch.randn(2, 3, 8, 8)
    site = find_sites(network, x)[index]
    before, width = network(x), len(site.layers(network)[0].weight)

    resize(network, site, width + 3)

    assert len(site.layers(network)[0].weight) == width + 3
    torch.testing.assert_close(network(x), before)


def test_a_width_may_go_down_and_up_again() -> None:
    network, architecture = resnet(middle=(4, 6))
    site = sites_of(architecture)[1]
    shapes = {name: value.shape for name, value in network.state_dict().items()}

    resize(network, site, 1)
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 3)
    resize(network, site, 6)

    assert {name: value.shape for name, value in network.state_dict().items()} == shapes


def test_units_that_are_kept_keep_their_weights() -> None:
    torch.manual_seed(0)
    network, x = vgg().eval(), torch.randn(2, 3, 8, 8)
    site = find_sites(network, x)[0]
    dead = [1, 4, 5]
    with torch.no_grad():
        network[1].weight[dead], network[1].bias[dead] = 0.0, -1.0
    right, fan_in, read = network(x), network[0].weight.clone(), network[5].weight.clone()
    kept = [7, 0, 2, 3, 6]  # in whatever order

    narrow(network, site, torch.tensor(kept))

    assert torch.equal(network[0].weight, fan_in[kept])
    assert torch.equal(network[5].weight.unflatten(1, (5, 9)), read.unflatten(1, (8, 9))[:, kept])
    assert (network[0].out_channels, network[1].num_features, network[5].in_features) == (5, 5, 45)
    assert torch.allclose(network(x), right, atol=1e-6)
