import pytest
import torch
from torch import nn

from tests.growth.scenes import resnet
from tinygrow.growth.replay import Replay
from tinygrow.growth.sites import sites_of
from tinygrow.growth.statistics import batch_statistics


class Net(nn.Module):
    """early - first - second, with a way around the last two; counts the calls of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 4), nn.Linear(4, 5)
        self.calls = 0
        self.early.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.early(x))
        return self.second(torch.relu(self.first(x))) + x


class Branching(Net):
    """Cannot be traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if float(x.sum()) > -1e9 else x


class Overwriting(Net):
    """Overwrites what the layer has read, behind it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.early(x))
        y = self.first(x)
        x.mul_(3.0)
        return self.second(torch.relu(y)) + x


def change(network: nn.Module, layer: str) -> None:
    with torch.no_grad():
        network.get_submodule(layer).weight.mul_(-1.5)


def test_a_changed_layer_is_seen_and_what_is_before_it_is_not_run_again() -> None:
    torch.manual_seed(0)
    network, x, y = Net(), torch.randn(6, 5), torch.randn(3, 5)
    replay = Replay(network, "first")
    replay(x)
    replay(y)
    for _ in range(3):
        change(network, "first")
        before = network.calls
        assert torch.equal(replay(x), network(x))
        assert torch.equal(replay(y), network(y))
        assert network.calls == before + 2  # by the whole network alone


def test_a_residual_network_gives_the_same_bits_at_every_site() -> None:
    network, architecture = resnet()
    x = torch.randn(5, *architecture.input_shape)
    for site in sites_of(architecture):
        replay = Replay(network, site.first)
        with batch_statistics(network):
            replay(x)
            change(network, site.first)
            with torch.no_grad():
                assert torch.equal(replay(x), network(x))
            assert replay._tail is not None


@pytest.mark.parametrize("kind", [Branching, Overwriting])
def test_what_cannot_be_cut_is_run_whole(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network, x = kind(), torch.randn(6, 5)
    replay = Replay(network, "first")
    for _ in range(3):
        change(network, "first")
        with torch.no_grad():
            assert torch.equal(replay(x), network(x))
    assert replay._tail is None


def test_nothing_is_kept_beyond_the_limit() -> None:
    network = Net()
    inputs = [torch.randn(6, 5) for _ in range(3)]
    replay = Replay(network, "first", limit=200)  # 120 bytes an input
    for x in inputs:
        replay(x)
    change(network, "first")
    for x in inputs:
        with torch.no_grad():
            assert torch.equal(replay(x), network(x))
    assert len(replay._kept) == 2
