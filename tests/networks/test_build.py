import pytest
import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.networks.build import build_network
from tinygrow.networks.mlp import MLP
from tinygrow.networks.resnet import ResNet

WIDE = Architecture(
    kind="resnet",
    input_shape=(3, 8, 8),
    classes=50,
    stage_widths=(48, 64),
    blocks=(1, 1),
    middle_widths=(40, 56),
)
DEEP = Architecture(kind="mlp", input_shape=(1, 8, 8), classes=9, middle_widths=(300, 200))


@pytest.mark.parametrize(("architecture", "kind"), [(WIDE, ResNet), (DEEP, MLP)])
def test_the_architecture_names_the_module(architecture: Architecture, kind: type) -> None:
    assert isinstance(build_network(architecture), kind)


@pytest.mark.parametrize("architecture", [WIDE, DEEP])
def test_a_seed_decides_all_weights_alone(architecture: Architecture) -> None:
    torch.manual_seed(1)
    first = build_network(architecture, 5).state_dict()
    torch.manual_seed(2)
    again = build_network(architecture, 5).state_dict()
    other = build_network(architecture, 6).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    matrices = [key for key in first if first[key].ndim > 1]
    assert matrices and not any(torch.equal(first[key], other[key]) for key in matrices)


@pytest.mark.parametrize("architecture", [WIDE, DEEP])
def test_weights_are_xavier_normal_with_the_gain_of_relu(architecture: Architecture) -> None:
    tested = 0
    for module in build_network(architecture, seed=0).modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight = module.weight.detach()
        taps = weight[0, 0].numel()
        expected = 2**0.5 * (2 / (taps * (weight.shape[0] + weight.shape[1]))) ** 0.5
        standard_error = expected / (2 * weight.numel()) ** 0.5
        assert float(weight.std()) == pytest.approx(expected, abs=5 * standard_error)
        assert float(weight.mean()) == pytest.approx(0, abs=5 * expected / weight.numel() ** 0.5)
        assert module.bias is None or not module.bias.any()
        tested += 1
    assert tested == (7 if architecture is WIDE else 3)


def test_batch_norm_begins_as_the_identity() -> None:
    for module in build_network(WIDE, seed=0).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all()) and not module.bias.any()
            assert not module.running_mean.any() and bool((module.running_var == 1).all())
