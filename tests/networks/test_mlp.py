import pytest
import torch

from tinygrow.architecture import Architecture
from tinygrow.growth.sites import sites_of
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_parameters


def mlp(*hidden: int, shape: tuple[int, int, int] = (3, 4, 5)) -> Architecture:
    return Architecture(kind="mlp", input_shape=shape, classes=7, middle_widths=hidden)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 4)])
@pytest.mark.parametrize("hidden", [(), (6,), (6, 2, 9)])
def test_forward_written_out(hidden: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    network = build_network(mlp(*hidden, shape=shape), seed=1)
    x = torch.randn(5, *shape)
    value = x.reshape(5, -1)
    for layer in network.layers:
        value = (value @ layer.weight.T + layer.bias).clamp_min(0)
    expected = value @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network(x), expected)
    assert len(network.layers) == len(hidden)


def test_parameters_counted_by_hand() -> None:
    network = build_network(mlp(6, 2))
    assert count_parameters(network) == (60 * 6 + 6) + (6 * 2 + 2) + (2 * 7 + 7)


def test_layers_are_numbered_from_one() -> None:
    architecture = mlp(6, 2, 9)
    sites = sites_of(architecture)
    assert [site.depth for site in sites] == [1, 2, 3]
    network = build_network(architecture)
    for site, width in zip(sites, (6, 2, 9), strict=True):
        first, second = site.layers(network)
        assert first.out_features == second.in_features == width
