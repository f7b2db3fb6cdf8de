"""Costs against counts by hand."""

import pytest
import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import (
    LayerShape,
    count_multiply_adds,
    count_parameters,
    layer_shapes,
)

SHAPE = (3, 8, 6)
NETWORK = Architecture(
    kind="resnet",
    input_shape=SHAPE,
    classes=10,
    stage_widths=(4, 5),
    blocks=(1, 2),
    middle_widths=(2, 6, 7),
)


def test_multiply_adds_of_a_residual_network() -> None:
    large, small = 8 * 6, 4 * 3
    by_hand = (
        9 * 3 * 4 * large  # stem
        + 9 * 4 * 2 * large * 2  # block of middle width 2
        + 4 * 5 * large  # transition, before its pooling
        + 9 * 5 * 6 * small * 2
        + 9 * 5 * 7 * small * 2
        + 5 * 10  # head
    )
    assert count_multiply_adds(build_network(NETWORK), SHAPE) == by_hand


def test_parameters_of_a_residual_network() -> None:
    by_hand = (
        (9 * 3 * 4 + 2 * 4)  # stem: no bias, BatchNorm
        + (9 * 4 * 2 + 2 + 2 * 2) + (9 * 2 * 4 + 4 + 2 * 4)
        + (4 * 5 + 5 + 2 * 5)
        + (9 * 5 * 6 + 6 + 2 * 6) + (9 * 6 * 5 + 5 + 2 * 5)
        + (9 * 5 * 7 + 7 + 2 * 7) + (9 * 7 * 5 + 5 + 2 * 5)
        + (5 * 10 + 10)
    )  # fmt: skip
    assert count_parameters(build_network(NETWORK)) == by_hand


def test_multiply_adds_of_a_perceptron() -> None:
    architecture = Architecture(kind="mlp", input_shape=SHAPE, classes=10, middle_widths=(11, 12))
    by_hand = 3 * 8 * 6 * 11 + 11 * 12 + 12 * 10
    assert count_multiply_adds(build_network(architecture), SHAPE) == by_hand


def test_multiply_adds_of_strides_and_groups() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2), nn.Flatten(), nn.Linear(96, 5))
    assert count_multiply_adds(network, (4, 7, 9)) == 9 * 2 * 8 * (3 * 4) + 96 * 5


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_no_trace(training: bool) -> None:
    network = build_network(NETWORK, seed=0).train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    count_multiply_adds(network, SHAPE)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(module.training == training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())


def test_hooks_are_gone_after_a_failure() -> None:
    network = build_network(NETWORK).train()
    with pytest.raises(RuntimeError):
        count_multiply_adds(network, (1, 8, 6))
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_shapes_of_layers_in_the_order_they_run() -> None:
    shapes = layer_shapes(build_network(NETWORK), SHAPE)
    assert [name for name, _ in shapes] == [
        "stem.0",
        "stages.0.block0.conv1",
        "stages.0.block0.conv2",
        "stages.1.transition.conv",
        "stages.1.block0.conv1",
        "stages.1.block0.conv2",
        "stages.1.block1.conv1",
        "stages.1.block1.conv2",
        "head",
    ]
    large, small = (8, 6), (4, 3)
    by_name = dict(shapes)
    assert by_name["stem.0"] == LayerShape(3, 4, 9, False, large, large)
    assert by_name["stages.0.block0.conv2"] == LayerShape(2, 4, 9, True, large, large)
    assert by_name["stages.1.transition.conv"] == LayerShape(4, 5, 1, True, large, large)
    assert by_name["stages.1.block1.conv1"] == LayerShape(5, 7, 9, True, small, small)
    assert by_name["head"] == LayerShape(5, 10, 1, True, (), ())
    assert by_name["stages.1.block1.conv1"].patch == 9 * 5 + 1
    assert by_name["stem.0"].patch == 9 * 3
