"""The statistics against those of gromo, where both solve one problem."""

import pytest
import torch
from torch import nn

from tests.growth.scenes import EXACT, SITE, PairNet, identity
from tinygrow.growth.bottleneck import best_update
from tinygrow.growth.statistics import neuron_moments, update_moments


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
