import copy

import pytest
import torch
from torch import nn

from tinygrow.checkpoint import Checkpoint
from tinygrow.errors import TinygrowError
from tinygrow.products.fold import fold_batch_norm


def norms(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def test_folded_resnet_computes_the_same(resnet: Checkpoint) -> None:
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    folded = fold_batch_norm(resnet.network)
    assert norms(resnet.network) and not norms(folded)
    assert not any(module.training for module in folded.modules())
    # float64 shows the folding itself; what is left is the rounding of the stored weights.
    right = copy.deepcopy(resnet.network).double()(images.double())
    found = copy.deepcopy(folded).double()(images.double())
    assert (found - right).abs().max() < 1e-6 * right.abs().max()
    assert (folded(images) - resnet.network(images)).abs().max() < 1e-5 * right.abs().max()


def test_names_stay_those_of_the_checkpoint(resnet: Checkpoint) -> None:
    folded = fold_batch_norm(resnet.network).state_dict()
    before = resnet.network.state_dict()
    layers = {name for name in before if "norm" not in name and "stem.1" not in name}
    # The stem's convolution has no bias of its own.
    assert set(folded) == layers | {"stem.0.bias"}
    assert all(t.dtype == torch.float32 for t in folded.values())


def test_the_original_is_left_alone(resnet: Checkpoint) -> None:
    before = {k: v.clone() for k, v in resnet.network.state_dict().items()}
    fold_batch_norm(resnet.network)
    after = resnet.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert norms(resnet.network)


def test_mlp_has_nothing_to_fold(mlp: Checkpoint) -> None:
    folded = fold_batch_norm(mlp.network).state_dict()
    right = mlp.network.state_dict()
    assert all(torch.equal(folded[key], right[key]) for key in right)


@pytest.mark.parametrize("affine", [True, False])
def test_linear_layers_fold_too(affine: bool) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4, affine=affine)
    network = nn.Sequential(nn.Linear(3, 4, bias=False), norm, nn.ReLU(), nn.Linear(4, 2)).eval()
    norm.running_mean.copy_(torch.randn(4))
    norm.running_var.copy_(torch.rand(4) + 0.1)
    x = torch.randn(5, 3)
    torch.testing.assert_close(fold_batch_norm(network)(x), network(x))


class Shared(nn.Module):
    """BatchNorm of a convolution whose output is read a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class Activated(nn.BatchNorm2d):
    """A norm with its activation inside, as timm has them; perhaps one that does more."""

    def __init__(self, width: int, more: float = 0.0) -> None:
        super().__init__(width)
        self.act, self.more = nn.ReLU(), more

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(super().forward(x)) + self.more


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(1)),
        Shared(),
        nn.Sequential(nn.Conv2d(1, 1, 1), Activated(1)),
        nn.Sequential(nn.Tanh(), Activated(1)),
    ],
    ids=["no layer before", "shared layer", "activation inside", "both"],
)
def test_norms_without_a_layer_of_their_own_become_a_product_and_a_sum(network: nn.Module) -> None:
    torch.manual_seed(0)
    for norm in norms(network):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(4, 1, 3, 3)
    folded = fold_batch_norm(network)
    assert norms(network) and not norms(folded)
    torch.testing.assert_close(folded(x), network.eval()(x).detach())


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, 1), Activated(1, more=1.0)), "more than normalise"),
        (
            nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False)),
            "no running statistics",
        ),
    ],
)
def test_refuses_what_it_cannot_fold(network: nn.Module, words: str) -> None:
    with pytest.raises(TinygrowError, match=words):
        fold_batch_norm(network)
