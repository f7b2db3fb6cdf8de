"""Interval bounds against the network itself, float32 evaluation, and exact fractions."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from tests.stability.networks import Residual, card, dense, perceptron, residual, samples
from tinygrow.architecture import final_architecture
from tinygrow.data.prepared import DataCard
from tinygrow.networks.build import build_network
from tinygrow.products.export import Product
from tinygrow.products.fold import fold_batch_norm
from tinygrow.settings.network import ResNetSettings
from tinygrow.stability.evaluate import evaluate, normalised
from tinygrow.stability.interval import interval_bounds
from tinygrow.stability.program import (
    Add,
    AveragePool,
    Convolution,
    MaxPool,
    Program,
    ScaleAndShift,
    input_box,
    program_of,
)


@pytest.mark.parametrize("seed", range(5))
def test_bounds_hold_on_every_operation(seed: int) -> None:
    program = residual(seed)
    kinds = {type(node) for node in program.nodes}
    assert {Add, AveragePool, Convolution, MaxPool, ScaleAndShift} <= kinds
    bounds = interval_bounds(program)
    x = samples(program, 100, seed)
    values = evaluate(program, x, bounds)
    assert set(values) == set(bounds)
    for name, value in values.items():
        assert (value <= bounds[name].upper + 1e-12).all()
        assert (value >= bounds[name].lower - 1e-12).all()


def test_float32_strays_no_further_than_the_drift() -> None:
    for seed in range(5):
        program = residual(seed)
        bounds = interval_bounds(program)
        x = samples(program, 50, seed).float()
        x = x.clamp(
            *(v.float().reshape(-1, 1, 1) for v in (program.input.lower, program.input.upper))
        )
        single, double = evaluate(program, x, bounds), evaluate(program, x.double(), bounds)
        for name, value in single.items():
            apart = (value.double() - double[name]).abs()
            assert (apart <= bounds[name].drift + 1e-13).all()
            if name == "head":
                assert apart.max() > 0  # else nothing was measured


def test_the_program_computes_the_network() -> None:
    for seed in range(3):
        network = Residual(seed)
        program = program_of(network, card((2, 9, 9)))
        x = samples(program, 4, seed).float()
        torch.testing.assert_close(evaluate(program, x, ["head"])["head"], network(x))


def test_a_residual_network_is_read_by_its_module_paths() -> None:
    network = build_network(final_architecture(ResNetSettings(base_width=2), (3, 8, 8), 10), 0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.weight.normal_()
    folded = fold_batch_norm(network)
    program = program_of(folded, card((3, 8, 8)))
    state = folded.state_dict()
    assert not program.unsupported()
    layers = {layer.name for layer in program.layers()}
    assert {"stem.0", "stages.0.block0.conv1", "stages.3.block1.conv1"} <= layers
    assert "stages.0.block0.conv2" not in layers  # its output is added to something
    assert all(f"{name}.weight" in state for name in layers)
    x = samples(program, 3).float()
    torch.testing.assert_close(evaluate(program, x, ["head"])["head"], folded(x))


def test_layer_one_is_exact() -> None:
    """Against fractions, and at the corner where the bound is reached."""
    program = dense(perceptron([6], 5, seed=1, shift=1.0), 5)
    layer = program.layers()[0]
    bounds = interval_bounds(program)[layer.name]
    low, high = (Fraction(float(v)) for v in (program.input.lower[0], program.input.upper[0]))
    for unit in range(6):
        weights = [Fraction(float(w)) for w in layer.weight[unit]]
        exact = sum((w * (high if w > 0 else low) for w in weights), Fraction(0))
        exact += Fraction(float(layer.bias[unit]))
        found = Fraction(float(bounds.upper[unit]))
        assert exact <= found <= exact + Fraction(1, 10**12)


def test_padding_is_zero_and_not_the_domain() -> None:
    """The corner of a padded map reads fewer numbers; its bound shows it."""
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(9, 2))
    network[0].weight.data.fill_(1.0)
    network[0].bias.data.fill_(0.0)
    program = program_of(network.eval(), card((1, 3, 3), mean=0.0, std=1.0))
    upper = interval_bounds(program)["0"].upper[0]
    torch.testing.assert_close(upper[0, 0].item(), 4.0, rtol=1e-6, atol=0)
    torch.testing.assert_close(upper[1, 1].item(), 9.0, rtol=1e-6, atol=0)


def test_the_box_holds_every_pixel_as_the_graph_computes_it() -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(200):
        mean, std = (
            (torch.rand(3, generator=generator, dtype=torch.float64) + 0.01).tolist(),
            (torch.rand(3, generator=generator, dtype=torch.float64) + 0.01).tolist(),
        )
        data = DataCard(
            name="",
            source="",
            classes=(),
            shape=(3, 16, 16),
            mean=tuple(mean),
            std=tuple(std),
            counts={},
        )
        box = input_box(data)
        pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
        shipped = Product(nn.Identity(), data)(pixels)
        program = Program((box,))
        assert torch.equal(shipped, normalised(program, pixels))
        fused = (
            pixels.double() * box.scale.double().reshape(3, 1, 1)
            + box.shift.double().reshape(3, 1, 1)
        ).float()
        for values in (shipped.double(), fused.double()):
            assert (values <= box.upper.reshape(3, 1, 1)).all()
            assert (values >= box.lower.reshape(3, 1, 1)).all()
        assert (
            box.upper - shipped.double().amax((0, 2, 3)) < 1e-5 * box.upper.abs().clamp(min=1)
        ).all()


def test_zero_weights_are_bounded_without_error_and_behind_anything() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 3)
            self.second.weight.data[1] = 0
            self.second.bias.data[1] = -0.5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x.flatten(1)))
            return torch.relu(self.second(torch.sigmoid(x)))

    program = program_of(Strange().eval(), card((1, 2, 2)))
    assert len(program.unsupported()) == 1 and "sigmoid" in program.unsupported()[0]
    bounds = interval_bounds(program)["second"]
    assert bounds.upper.tolist() == [torch.inf, -0.5, torch.inf]
    assert bounds.lower.tolist() == [-torch.inf, -0.5, -torch.inf]
    assert bounds.drift[1] == 0


def test_a_layer_used_twice_is_not_taken_for_two() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.layer(torch.relu(self.layer(x.flatten(1)))))

    program = program_of(Twice().eval(), card((1, 2, 2)))
    assert len(program.unsupported()) == 2
    assert "more than once" in program.unsupported()[0]
    assert not program.layers()
