"""Schedules against closed forms; optimisers against updates written out by hand."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.small import recipe, small_network
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.optimizer import (
    Replacement,
    learning_rate,
    make_optimizer,
    pad_optimizer,
)


def schedule(name: str, warmup: float = 0.0) -> TrainingSettings:
    return recipe(schedule=name, warmup_epochs=warmup, learning_rate=0.4)


class TestSchedules:
    @pytest.mark.parametrize("epoch", [0.0, 0.1, 3.7, 10.0, 11.0])
    def test_constant(self, epoch: float) -> None:
        assert learning_rate(schedule("constant"), epoch, 10.0) == 0.4

    @pytest.mark.parametrize("warmup", [0.0, 2.0])
    @pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0])
    def test_cosine_after_the_warm_up(self, warmup: float, share: float) -> None:
        rate = learning_rate(schedule("cosine", warmup), warmup + share * (10 - warmup), 10.0)
        assert rate == pytest.approx(0.2 * (1 + math.cos(math.pi * share)), abs=1e-12)

    @pytest.mark.parametrize("warmup", [0.0, 2.0])
    @pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0])
    def test_triangular_falls_in_a_line(self, warmup: float, share: float) -> None:
        rate = learning_rate(schedule("triangular", warmup), warmup + share * (10 - warmup), 10.0)
        assert rate == pytest.approx(0.4 * (1 - share), abs=1e-12)

    @pytest.mark.parametrize("name", ["constant", "cosine", "triangular"])
    def test_the_warm_up_rises_in_a_line_to_the_peak(self, name: str) -> None:
        settings = schedule(name, warmup=2.0)
        for epoch in (0.1, 0.5, 1.0, 1.9):
            assert learning_rate(settings, epoch, 10.0) == pytest.approx(0.4 * epoch / 2)
        assert learning_rate(settings, 2.0, 10.0) == pytest.approx(0.4)
        assert learning_rate(settings, 0.0, 10.0) == pytest.approx(0.004), "no step for nothing"

    @pytest.mark.parametrize("name", ["cosine", "triangular"])
    def test_nothing_is_left_at_the_end_and_beyond(self, name: str) -> None:
        for epoch in (10.0, 10.5):
            assert learning_rate(schedule(name, 1.0), epoch, 10.0) == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("name", ["constant", "cosine", "triangular"])
    def test_a_plan_that_is_all_warm_up(self, name: str) -> None:
        settings = schedule(name, warmup=3.0)
        assert learning_rate(settings, 1.5, 3.0) == pytest.approx(0.2)
        assert 0 <= learning_rate(settings, 3.0, 3.0) <= 0.4


class TestMakeOptimizer:
    def test_only_matrices_and_kernels_decay(self) -> None:
        network = small_network()
        optimizer = make_optimizer(network, recipe(weight_decay=0.3))
        decay = {
            p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
        }
        named = dict(network.named_parameters())
        assert set(decay) == set(named.values())
        for name, parameter in named.items():
            vector = name.endswith("bias") or "norm" in name or name.startswith("stem.1")
            assert decay[parameter] == (0.0 if vector else 0.3), name

    def test_frozen_parameters_are_left_out(self) -> None:
        network = small_network()
        frozen = next(network.parameters()).requires_grad_(False)
        optimizer = make_optimizer(network, recipe())
        assert not any(p is frozen for g in optimizer.param_groups for p in g["params"])

    def test_sgd_takes_plain_steps(self) -> None:
        weight, bias, gradients = steps(recipe(learning_rate=0.1, weight_decay=0.2))
        w, b = 2.0, 3.0
        for g in gradients:
            w, b = w - 0.1 * (g + 0.2 * w), b - 0.1 * g
        assert (weight, bias) == (pytest.approx(w), pytest.approx(b))

    @pytest.mark.parametrize("nesterov", [False, True])
    def test_sgd_with_momentum(self, nesterov: bool) -> None:
        settings = recipe(learning_rate=0.1, momentum=0.9, nesterov=nesterov)
        weight, _, gradients = steps(settings)
        w, velocity = 2.0, 0.0
        for g in gradients:
            velocity = 0.9 * velocity + g
            w -= 0.1 * (g + 0.9 * velocity if nesterov else velocity)
        assert weight == pytest.approx(w)

    def test_adamw_decays_apart_from_the_gradient(self) -> None:
        weight, bias, gradients = steps(
            recipe(optimizer="adamw", learning_rate=0.1, weight_decay=0.2)
        )
        w, b, first, second = 2.0, 3.0, 0.0, 0.0
        for t, g in enumerate(gradients, start=1):
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
            step = 0.1 * (first / (1 - 0.9**t)) / (math.sqrt(second / (1 - 0.999**t)) + 1e-8)
            w, b = w - 0.1 * 0.2 * w - step, b - step
        assert (weight, bias) == (pytest.approx(w, rel=1e-5), pytest.approx(b, rel=1e-5))


def steps(settings: TrainingSettings) -> tuple[float, float, list[float]]:
    """Take three steps on one weight (2) and one bias (3) with given gradients."""
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 3.0)
    optimizer = make_optimizer(layer, settings)
    gradients = [1.0, -0.5, 0.25]
    for g in gradients:
        layer.weight.grad, layer.bias.grad = torch.full((1, 1), g), torch.full((1,), g)
        optimizer.step()
    return layer.weight.item(), layer.bias.item(), gradients


class TestPadOptimizer:
    @pytest.mark.parametrize(
        "changes",
        [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"optimizer": "adamw"}, {}],
    )
    @pytest.mark.parametrize("dim", [0, 1])
    def test_old_entries_go_on_and_new_ones_start_afresh(
        self, changes: dict[str, Any], dim: int
    ) -> None:
        """The widened layer moves as if it had been wide, with zero gradients, all the time."""
        settings = recipe(learning_rate=0.1, weight_decay=0.01, **changes)
        generator = torch.Generator().manual_seed(0)
        narrow, wide = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        wide.weight = nn.Parameter(torch.randn(*((5, 3) if dim == 0 else (3, 5))))
        with torch.no_grad():
            wide.weight.narrow(dim, 3, 2).zero_()
            wide.weight.narrow(dim, 0, 3).copy_(narrow.weight)
        optimizer, reference = make_optimizer(narrow, settings), make_optimizer(wide, settings)
        for _ in range(3):
            gradient = torch.randn(3, 3, generator=generator)
            narrow.weight.grad = gradient
            wide.weight.grad = torch.zeros_like(wide.weight)
            wide.weight.grad.narrow(dim, 0, 3).copy_(gradient)
            optimizer.step()
            reference.step()

        old = narrow.weight
        narrow.weight = nn.Parameter(torch.cat([old.detach(), torch.zeros(2, 3)]))
        if dim == 1:
            narrow.weight = nn.Parameter(torch.cat([old.detach(), torch.zeros(3, 2)], 1))
        pad_optimizer(optimizer, [Replacement(old, narrow.weight, dim)])
        for _ in range(3):
            gradient = torch.randn(wide.weight.shape, generator=generator)
            narrow.weight.grad, wide.weight.grad = gradient, gradient.clone()
            optimizer.step()
            reference.step()
        torch.testing.assert_close(narrow.weight, wide.weight)

    def test_the_old_parameter_is_forgotten_and_others_keep_their_state(self) -> None:
        layer = nn.Linear(2, 2)
        optimizer = make_optimizer(layer, recipe(momentum=0.9, weight_decay=0.1))
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        old, kept = layer.weight, optimizer.state[layer.bias]["momentum_buffer"].clone()
        layer.weight = nn.Parameter(torch.zeros(3, 2))
        pad_optimizer(optimizer, [Replacement(old, layer.weight, 0)])
        assert old not in optimizer.state
        groups = [list(group["params"]) for group in optimizer.param_groups]
        assert groups[0][0] is layer.weight and groups[1][0] is layer.bias
        assert torch.equal(optimizer.state[layer.bias]["momentum_buffer"], kept)

    def test_before_the_first_step_there_is_no_momentum(self) -> None:
        layer = nn.Linear(2, 2, bias=False)
        optimizer = make_optimizer(layer, recipe(momentum=0.9))
        old = layer.weight
        layer.weight = nn.Parameter(torch.zeros(3, 2))
        pad_optimizer(optimizer, [Replacement(old, layer.weight, 0)])
        assert set(optimizer.state) == {layer.weight}
        assert not optimizer.state[layer.weight]["momentum_buffer"].any()
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        assert bool((layer.weight != 0).all())
