import pytest
from torch import nn

from tests.growth.scenes import perceptron, resnet
from tinygrow.architecture import Architecture, final_architecture
from tinygrow.errors import TinygrowError
from tinygrow.growth.sites import Site, sites_of
from tinygrow.networks.build import build_network
from tinygrow.settings.network import ResNetSettings


def test_resnet18_grows_the_first_convolution_of_each_block() -> None:
    sites = sites_of(final_architecture(ResNetSettings(), (3, 32, 32), 100))

    # tiny.md 1.11: transitions are layers 6, 11 and 16, and every block has two.
    assert [site.depth for site in sites] == [2, 4, 7, 9, 12, 14, 17, 19]
    assert [site.index for site in sites] == list(range(8))


def test_depths_count_the_layers_of_the_network() -> None:
    network, architecture = resnet(widths=(4, 8, 16), middle=(2, 3, 5))
    layers = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    for site in sites_of(architecture):
        assert layers[site.depth - 1] == site.first
        assert layers[site.depth] == site.second


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
def test_a_site_names_the_layers_around_its_width(kind: str) -> None:
    network, architecture = resnet() if kind == "resnet" else perceptron((4, 5))

    sites = sites_of(architecture)

    assert len(sites) == len(architecture.middle_widths)
    for site, width in zip(sites, architecture.middle_widths, strict=True):
        first, second = site.layers(network)
        assert first.weight.shape[0] == second.weight.shape[1] == width
        if kind == "resnet":
            assert network.get_submodule(site.norm).num_features == width
        else:
            assert site.norm is None


def test_the_last_site_of_a_perceptron_feeds_the_head() -> None:
    network, architecture = perceptron((4, 5, 6))

    assert sites_of(architecture)[-1].layers(network)[1] is network.head


def test_blocks_of_several_stages_are_found() -> None:
    architecture = Architecture(
        kind="resnet",
        input_shape=(3, 8, 8),
        classes=2,
        stage_widths=(2, 4),
        blocks=(3, 1),
        middle_widths=(1, 2, 3, 4),
    )
    network = build_network(architecture)

    widths = [site.layers(network)[0].out_channels for site in sites_of(architecture)]

    assert widths == [1, 2, 3, 4]


def test_two_kinds_of_layers_are_refused_by_name() -> None:
    network = nn.ModuleDict({"a": nn.Conv2d(1, 2, 3), "b": nn.Linear(7, 2)})
    site = Site(depth=1, index=0, first="a", norm=None, second="b")
    with pytest.raises(TinygrowError, match="a is a Conv2d of 2 outputs and b a Linear of 7"):
        site.layers(network)

    network = nn.ModuleDict({"a": nn.Linear(1, 2), "b": nn.Conv2d(2, 2, 1)})
    with pytest.raises(TinygrowError, match="a is a Linear and b a Conv2d"):
        site.layers(network)
