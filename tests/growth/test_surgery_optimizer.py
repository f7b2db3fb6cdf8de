"""What becomes of the optimiser when a network widens."""

import copy

import pytest
import torch
from torch import nn

from tests.growth.scenes import perceptron, random_units, resnet
from tinygrow.growth.sites import sites_of
from tinygrow.growth.surgery import widen
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.optimizer import Replacement, make_optimizer, pad_optimizer


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, n: int) -> None:
    for _ in range(n):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_padded_optimizer_state_keeps_old_entries_and_starts_new_ones_at_zero(name: str) -> None:
    settings = TrainingSettings(optimizer=name, momentum=0.9 * (name == "sgd"), weight_decay=0.1)
    network, architecture = resnet(middle=(2, 3))
    site, x = sites_of(architecture)[1], torch.randn(6, 3, 8, 8)
    optimizer = make_optimizer(network, settings)
    steps(network, optimizer, x, 3)
    before = {p: dict(state) for p, state in optimizer.state.items()}

    replaced = widen(network, site, random_units(network, site, 2))
    pad_optimizer(optimizer, replaced)

    grown = {r.new: r for r in replaced}
    assert set(optimizer.state) == set(network.parameters())
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in network.parameters()}
    for parameter, state in optimizer.state.items():
        r = grown.get(parameter, Replacement(parameter, parameter, 0))
        for key, value in state.items():
            old = before[r.old][key]
            if key == "step":
                assert value == old
                continue
            size = old.shape[r.dim]
            assert value.shape == parameter.shape
            assert torch.equal(value.narrow(r.dim, 0, size), old)
            assert not value.narrow(r.dim, size, value.shape[r.dim] - size).any()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_after_padding_moves_old_weights_as_if_nothing_had_been_added(name: str) -> None:
    settings = TrainingSettings(optimizer=name, momentum=0.9 * (name == "sgd"), weight_decay=0.1)
    network, architecture = perceptron((4, 4))
    network.double()
    site, x = sites_of(architecture)[0], torch.randn(6, 3, 8, 8, dtype=torch.float64)
    optimizer = make_optimizer(network, settings)
    steps(network, optimizer, x, 3)
    narrow = copy.deepcopy(network)
    twin = make_optimizer(narrow, settings)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    # Units that do nothing: old gradients are those of the narrow network.
    units = random_units(network, site, 2).scaled(1.0, 0.0)
    pad_optimizer(optimizer, widen(network, site, units))
    for net, optim in ((network, optimizer), (narrow, twin)):
        steps(net, optim, x, 1)

    for name_, value in narrow.named_parameters():
        wide = dict(network.named_parameters())[name_]
        old = wide[tuple(slice(0, n) for n in value.shape)]
        torch.testing.assert_close(old, value, rtol=1e-9, atol=1e-12)
    # The new fan-out weights left zero: their state is live.
    assert network.layers[1].weight[:, 4:].abs().max() > 0


def test_padding_a_fresh_optimizer_swaps_parameters() -> None:
    network, architecture = perceptron((4,))
    optimizer = make_optimizer(network, TrainingSettings())
    site = sites_of(architecture)[0]

    replaced = widen(network, site, random_units(network, site, 1))
    pad_optimizer(optimizer, replaced)

    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in network.parameters()}
    assert not optimizer.state
