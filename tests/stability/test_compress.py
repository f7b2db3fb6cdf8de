"""The whole of a compression: random networks, checkpoints, networks that cannot be read."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.growth.scenes import CARD
from tests.stability.removal import (
    check_same,
    images,
    made,
    mlp,
    operations,
    plant,
    randomize,
    resnet,
)
from tinygrow.architecture import Architecture
from tinygrow.checkpoint import load_checkpoint, save_checkpoint
from tinygrow.networks.build import build_network
from tinygrow.products.fold import fold_batch_norm


@pytest.mark.parametrize("make", [mlp, resnet], ids=["mlp", "resnet"])
@pytest.mark.parametrize("seed", range(4))
def test_random_plants_never_change_the_function(
    make: Callable[..., tuple[nn.Module, Architecture]], seed: int
) -> None:
    network, architecture = make(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    layers = layers or [m for m in network.modules() if isinstance(m, nn.Linear)][:-1]
    for layer in layers:
        for unit in range(len(layer.bias)):
            kind = int(torch.randint(0, 8, (), generator=generator))
            if kind == 0:
                plant(layer, unit, bias=-500.0)
            elif kind == 1:
                plant(layer, unit, bias=500.0)
            elif kind == 2:
                plant(layer, unit, weight=0.0, bias=-0.5)
            elif kind == 3:
                plant(layer, unit, weight=0.0, bias=0.5)
    done = made(network, architecture)
    assert done.rewritten.steps
    check_same(done)


def test_a_network_of_which_nothing_is_stable_stays_as_it_is() -> None:
    network, architecture = mlp()
    for layer in network.layers:
        layer.bias.data.zero_()
    done = made(network, architecture)
    assert done.rewritten.steps == () and done.rewritten.actions == {}
    right = fold_batch_norm(network).state_dict()
    assert all(torch.equal(v, right[name]) for name, v in done.network.state_dict().items())


def test_a_checkpoint_gives_the_same_network_back(tmp_path: Path) -> None:
    network, architecture = resnet()
    plant(network.stages[0].block0.norm1, 1, bias=-99.0)
    plant(network.stages[0].block1.norm2, slice(None), weight=0.0, bias=0.5)  # type: ignore[arg-type]
    done = made(network, architecture)
    assert operations(done) == ["shortcut", "remove"]
    path = tmp_path / "compressed.safetensors"
    save_checkpoint(path, done.architecture, done.network, {})
    again = load_checkpoint(path)
    assert again.architecture == done.architecture
    x = images().float()
    assert torch.equal(again.network(x), done.network(x))
    save_checkpoint(tmp_path / "again.safetensors", again.architecture, again.network, {})
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    # It is folded: folding it once more changes nothing.
    assert torch.equal(fold_batch_norm(again.network)(x), done.network(x))


def test_a_network_of_the_users_is_built_again_as_well(tmp_path: Path) -> None:
    architecture = Architecture(
        kind="custom",
        input_shape=CARD.shape,
        classes=3,
        middle_widths=(5, 7),
        network="tests.networks.own:small",
    )
    network = randomize(build_network(architecture), 0)
    plant(network[0], 2, bias=-99.0)
    plant(network[0], 3, weight=0.0, bias=0.5)
    for unit in range(7):
        plant(network[4], unit, bias=999.0)
    done = made(network, architecture)
    assert operations(done) == ["remove", "constant", "fold"]
    check_same(done)
    path = tmp_path / "compressed.safetensors"
    save_checkpoint(path, done.architecture, done.network, {})
    again, x = load_checkpoint(path).network, images().float()
    assert torch.equal(again(x), done.network(x))
    assert "4.weight" not in again.state_dict()


def test_old_architectures_say_nothing_of_compression() -> None:
    _, architecture = mlp()
    assert "compressed" not in architecture.to_dict()
    assert Architecture.from_dict(architecture.to_dict()) == architecture


class InPlace(nn.Module):
    """Adds its hidden layer to what it became, which is another thing than its trace shows."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(192, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x.flatten(1))
        y[:, 1] += 200.0
        return self.two(torch.relu(y))


class OnData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(192, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x.flatten(1)) * (2 if x.sum() > 0 else 1)


@pytest.mark.parametrize("network", [OnData(), InPlace()], ids=["on data", "in place"])
def test_of_a_network_that_cannot_be_read_nothing_is_proved(network: nn.Module) -> None:
    randomize(network, 0)
    network.one.bias.data[1] = -100.0
    done = made(network)
    assert done.rewritten.steps == ()
    assert done.notes
    x = images().float()
    assert torch.equal(done.network(x), network(x))
