"""The statistics against those of gromo, where both solve one problem."""

import pytest
import torch
from torch import nn

from tests.growth.scenes import EXACT, SITE, PairNet, identity
from tinygrow.growth.bottleneck import best_update, gradmax_neurons
from tinygrow.growth.statistics import neuron_moments, update_moments


def test_gradmax_neurons_equal_those_of_gromo() -> None:
    conv2d = pytest.importorskip("gromo.modules.conv2d_growing_module")
    tools = pytest.importorskip("gromo.utils.tools")
    torch.manual_seed(0)
    x, y = torch.randn(20, 2, 6, 5), torch.randint(3, (20,))
    cpu = torch.device("cpu")
    theirs1 = conv2d.FullConv2dGrowingModule(2, 3, 3, padding=1, input_size=(6, 5), device=cpu)
    theirs2 = conv2d.FullConv2dGrowingModule(
        3, 4, 3, padding=1, input_size=(6, 5), previous_module=theirs1, device=cpu
    )
    first, second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
    first.load_state_dict(theirs1.layer.state_dict())
    second.load_state_dict(theirs2.layer.state_dict())
    network = PairNet(first, second, x, identity).float()

    theirs2.init_computation()
    logits = network.tail(theirs2(theirs1(x)))
    nn.functional.cross_entropy(logits, y, reduction="sum").backward()
    theirs2.update_computation()
    # Their N without projection: M_prev is made of the gradient, not of its opposite.
    alpha, omega, values = tools.compute_optimal_added_parameters(
        None,
        -theirs2.tensor_m_prev().double().flatten(1),
        statistical_threshold=0.0,
        maximum_added_neurons=3,
        alpha_zero=True,
        ignore_singular_values=True,
    )

    pair = neuron_moments(network, SITE, [(x, y)], None, EXACT, gram=False)
    ours = gradmax_neurons(pair.N, 3)

    assert not alpha.any()
    # Up to the sign of each, in their float32 moments.
    overlap = ours.omega @ omega
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(overlap.abs(), eye, rtol=0, atol=1e-4)
    assert len(values) == 3


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (1, 0), (2, 1)])
def test_full_convolution_moments_equal_those_of_gromo(stride: int, padding: int) -> None:
    conv2d = pytest.importorskip("gromo.modules.conv2d_growing_module")
    torch.manual_seed(0)
    x, y = torch.randn(20, 2, 6, 5), torch.randint(3, (20,))
    cpu = torch.device("cpu")
    theirs1 = conv2d.FullConv2dGrowingModule(2, 3, 3, padding=1, input_size=(6, 5), device=cpu)
    theirs2 = conv2d.FullConv2dGrowingModule(
        3, 4, 3, stride, padding, input_size=(6, 5), previous_module=theirs1, device=cpu
    )
    first, second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, stride, padding)
    first.load_state_dict(theirs1.layer.state_dict())
    second.load_state_dict(theirs2.layer.state_dict())
    network = PairNet(first, second, x, identity).float()

    theirs2.init_computation()
    logits = network.tail(theirs2(theirs1(x)))
    nn.functional.cross_entropy(logits, y, reduction="sum").backward()
    theirs2.update_computation()
    theirs2.compute_optimal_delta()

    update = update_moments(network, SITE, [(x, y)], EXACT)
    delta = best_update(update.S1, update.M, 1e-6)
    ours = neuron_moments(network, SITE, [(x, y)], delta, EXACT)

    # Their float32 einsums against our float64 products of the same float32 activations.
    close = {"rtol": 1e-4, "atol": 1e-4, "check_dtype": False}
    torch.testing.assert_close(theirs2.tensor_s(), update.S1, **close)
    torch.testing.assert_close(theirs2.tensor_s_growth(), ours.S, **close)
    torch.testing.assert_close(theirs2.tensor_n, ours.N, **close)
    assert ours.N.abs().max() > 0.05
