"""The growable residual network: the paper's size, live skips, any shape."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.growth.sites import sites_of
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_parameters
from tinygrow.networks.resnet import BasicBlock, ResNet, Transition
from tinygrow.settings.network import ResNetSettings


def resnet18(start: float, classes: int = 100) -> Architecture:
    """The paper's network, `start` of its middle widths."""
    settings = ResNetSettings(start=start)
    return seed_architecture(settings, final_architecture(settings, (3, 32, 32), classes))


def small(**changes: object) -> Architecture:
    values: dict[str, object] = {
        "kind": "resnet",
        "input_shape": (3, 8, 8),
        "classes": 4,
        "stage_widths": (3, 5, 6),
        "blocks": (1, 2, 1),
        "middle_widths": (2, 4, 1, 7),
    }
    return Architecture(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start", "parameters"), [(1.0, 12_773_156), (0.25, 3_368_516), (1 / 64, 429_566)]
)
def test_parameters_of_the_paper(start: float, parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(build_network(resnet18(start))) == parameters


def test_layers_are_numbered_as_in_the_paper() -> None:
    """Layers in order of execution: 21 in all, growth at 2, 4, 7, 9, 12, 14, 17, 19."""
    architecture = resnet18(1.0)
    with torch.device("meta"):
        network = build_network(architecture)
        order: list[str] = []
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(lambda *_, name=name: order.append(name))
        network(torch.zeros(2, 3, 32, 32))
    assert len(order) == 21
    assert order[0].startswith("stem") and order[-1] == "head"
    transitions = [i for i, name in enumerate(order, start=1) if "transition" in name]
    assert transitions == [6, 11, 16]
    sites = sites_of(architecture)
    assert [site.depth for site in sites] == [2, 4, 7, 9, 12, 14, 17, 19]
    for site in sites:
        assert (order[site.depth - 1], order[site.depth]) == (site.first, site.second)


def test_only_the_stem_has_no_bias() -> None:
    network = build_network(small())
    without = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is None
    ]
    assert without == ["stem.0"]


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
def test_a_block_of_silent_weights_is_relu_of_its_input(training: bool) -> None:
    block = BasicBlock(5, 3).train(training)
    nn.init.zeros_(block.norm2.weight)
    x = torch.randn(4, 5, 6, 6)
    assert torch.equal(block(x), x.relu())


@torch.no_grad()
def test_a_block_adds_its_input_to_its_branch() -> None:
    block = BasicBlock(5, 3).eval()
    x = torch.randn(4, 5, 6, 6)
    branch = block.norm2(block.conv2(block.norm1(block.conv1(x)).relu()))
    assert torch.equal(block(x), (branch + x).relu())
    assert bool(((branch + x) < 0).any()), "the last ReLU has something to cut"


@torch.no_grad()
def test_images_reach_the_logits_by_the_skips_alone() -> None:
    network = build_network(small(), seed=0).eval()
    for module in network.modules():
        if isinstance(module, BasicBlock):
            nn.init.zeros_(module.norm2.weight)
    assert isinstance(network, ResNet)
    x = torch.randn(6, 3, 8, 8)
    expected = network.stem(x)
    for stage in network.stages:
        if hasattr(stage, "transition"):
            # The next block's ReLU follows: a transition itself has none.
            expected = stage.transition(expected).relu()
    expected = network.head(expected.mean(dim=(2, 3)))
    torch.testing.assert_close(network(x), expected)
    assert float(network(x).std(dim=0).min()) > 0, "logits depend on the image"


@torch.no_grad()
def test_a_transition_normalises_then_averages_without_relu() -> None:
    transition = Transition(3, 5).eval()
    x = torch.randn(2, 3, 6, 4)
    weight = transition.conv.weight[:, :, 0, 0]
    y = torch.einsum("oc,bchw->bohw", weight, x) + transition.conv.bias[:, None, None]
    y = y / (1 + transition.norm.eps) ** 0.5
    expected = y.reshape(2, 5, 3, 2, 2, 2).mean(dim=(3, 5))
    torch.testing.assert_close(transition(x), expected, rtol=1e-4, atol=1e-6)
    assert float(expected.min()) < 0


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    stages = draw(st.integers(1, 3))
    blocks = tuple(draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages)))
    width = st.integers(1, 6)
    side = st.integers(2 ** (stages - 1), 12)
    return Architecture(
        kind="resnet",
        input_shape=(draw(st.sampled_from([1, 3])), draw(side), draw(side)),
        classes=draw(st.integers(2, 12)),
        stage_widths=tuple(draw(st.lists(width, min_size=stages, max_size=stages))),
        blocks=blocks,
        middle_widths=tuple(draw(st.lists(width, min_size=sum(blocks), max_size=sum(blocks)))),
    )


@given(architectures())
def test_any_number_of_stages_blocks_classes_grey_or_colour(architecture: Architecture) -> None:
    network = build_network(architecture, seed=0)
    logits = network(torch.rand(4, *architecture.input_shape))
    assert logits.shape == (4, architecture.classes)
    assert bool(torch.isfinite(logits).all())
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    for site, width in zip(sites_of(architecture), architecture.middle_widths, strict=True):
        first, second = site.layers(network)
        assert first.weight.shape[0] == second.weight.shape[1] == width
