"""Penalties that make units stable, against closed forms, brute force and finite differences."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.state.interrupt import run_in_pieces
from tests.training.small import classified, classified_stream, recipe, same, small_network, weights
from tinygrow.architecture import Architecture
from tinygrow.errors import SettingError, TinygrowError
from tinygrow.networks.build import build_network
from tinygrow.settings.training import FinetuneSettings, InducementSettings
from tinygrow.state.keeper import Keeper
from tinygrow.training.finetune import Finetuned, finetune
from tinygrow.training.loop import Trainer
from tinygrow.training.proximal import copy_zeros, shrink
from tinygrow.training.rs_loss import RSLoss

BOX = classified(3).box()


def perceptron() -> nn.Module:
    architecture = Architecture(kind="mlp", input_shape=(1, 4, 4), classes=3, middle_widths=(6, 5))
    return build_network(architecture, 0)


def tuned(
    inducement: InducementSettings, keeper: Keeper | None = None, **changes: object
) -> Finetuned:
    settings = FinetuneSettings(
        epochs=3,
        stability=inducement,
        training=recipe(**{"learning_rate": 0.1, "momentum": 0.9, **changes}),
    )
    network = small_network()
    return finetune(network, classified_stream(40), classified(12), settings, keeper=keeper)


def test_shrinking_is_the_proximal_operator() -> None:
    """argmin over v of |v| t + (v - w)^2 / 2, found on a fine grid, weight by weight."""
    network = perceptron()
    before = network.layers[0].weight.detach().double().flatten()[:20].clone()
    shrink(network, InducementSettings(l1_weights=0.5), rate=0.4)
    after = network.layers[0].weight.detach().double().flatten()[:20]
    grid = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    costs = 0.2 * grid.abs() + (grid - before[:, None]) ** 2 / 2
    assert torch.allclose(after, grid[costs.argmin(1)], atol=1e-5)
    assert (after == 0).any() and (after != 0).any()


def test_only_what_is_penalised_shrinks() -> None:
    network = small_network()
    names = dict(network.named_parameters())
    before = copy.deepcopy({k: v.detach() for k, v in names.items()})
    shrink(network, InducementSettings(l1_norm=1.0), rate=0.25)
    changed = {k for k, v in names.items() if not torch.equal(v, before[k])}
    assert changed == {k for k in names if "norm" in k and k.endswith("weight")} | {"stem.1.weight"}
    assert torch.equal(names["stem.1.weight"], torch.full((3,), 0.75))
    shrink(network, InducementSettings(l1_weights=1.0), rate=0.01)
    assert not torch.equal(names["head.weight"], before["head.weight"])
    assert torch.equal(names["head.bias"], before["head.bias"])
    assert torch.equal(names["stem.0.weight"], before["stem.0.weight"])


def test_the_shift_of_a_dead_scale_shrinks_as_well_and_of_no_other() -> None:
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.05, 0.05, 0.05, 1.0]))
        norm.bias.copy_(torch.tensor([0.3, -0.3, 0.02, 0.3]))
    shrink(norm, InducementSettings(l1_norm=1.0), rate=0.1)
    assert torch.equal(norm.weight, torch.tensor([0.0, 0.0, 0.0, 1.0 - 0.1]))
    assert torch.allclose(norm.bias, torch.tensor([0.2, -0.2, 0.0, 0.3]))
    assert norm.bias[2] == 0


def test_nothing_is_touched_unless_it_is_asked_for() -> None:
    network = small_network()
    before = weights(network)
    shrink(network, InducementSettings(rs_loss=1.0), rate=1.0)
    assert same(weights(network), before)
    assert same(weights(tuned(InducementSettings()).network), weights(tuned_without()))


def tuned_without() -> nn.Module:
    """Return the network of a training that was never told of penalties."""
    trainer = Trainer(
        small_network(),
        classified_stream(40),
        recipe(learning_rate=0.1, momentum=0.9),
        total_epochs=3,
    )
    for _ in range(3):
        trainer.train(1.0)
    return trainer.result


def scales(network: nn.Module) -> torch.Tensor:
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    return torch.cat([m.weight.detach() for m in norms])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_training_makes_exact_zeros_and_the_average_keeps_them(ema: float) -> None:
    done = tuned(InducementSettings(l1_norm=1.0), ema=ema)
    assert (scales(done.network) == 0).any()
    plain = tuned(InducementSettings(), ema=ema)
    assert not (scales(plain.network) == 0).any()


def test_an_average_is_zero_where_the_network_is() -> None:
    network, average = small_network(), small_network()
    with torch.no_grad():
        network.stem[1].weight[0] = 0
        network.stem[1].bias[0] = 0.5
        network.stem[1].weight[1], network.stem[1].bias[1] = 0, 0
        network.stem[1].bias[2] = 0
        average.stem[1].bias.fill_(0.25)
    copy_zeros(network, average, InducementSettings(l1_norm=1.0))
    assert average.stem[1].weight.tolist() == [0.0, 0.0, 1.0]
    assert average.stem[1].bias.tolist() == [0.25, 0.0, 0.25]


@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_a_training_in_pieces_gives_the_same_bits(tmp_path: Path, ema: float) -> None:
    inducement = InducementSettings(l1_norm=0.5, l1_weights=0.1, rs_loss=0.1)
    whole = tuned(inducement, ema=ema)
    pieces, stops = run_in_pieces(tmp_path / "s", lambda k: tuned(inducement, k, ema=ema), 3)
    assert stops >= 2
    assert same(weights(pieces.network), weights(whole.network))
    assert (scales(whole.network) == 0).any()


def slow_rs_loss(network: nn.Module) -> float:
    """Bounds of a perceptron unit by unit, sign by sign, in Python's numbers."""
    bounds = list(zip(BOX[0].flatten().tolist(), BOX[1].flatten().tolist(), strict=True))
    losses = []
    for layer in network.layers:
        found = []
        for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
            lows = [min(w * a, w * b) for w, (a, b) in zip(row, bounds, strict=True)]
            highs = [max(w * a, w * b) for w, (a, b) in zip(row, bounds, strict=True)]
            found.append((bias + sum(lows), bias + sum(highs)))
        losses.append(-sum(math.tanh(1 + a * b) for a, b in found) / len(found))
        bounds = [(max(a, 0), max(b, 0)) for a, b in found]
    return sum(losses) / len(losses)


def narrow(network: nn.Module) -> nn.Module:
    """Make bounds narrow enough that the tanh is not flat."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 0.2
    return network


def test_the_rs_loss_is_that_of_brute_force() -> None:
    network = narrow(perceptron())
    assert float(RSLoss(network, *BOX)().detach()) == pytest.approx(slow_rs_loss(network), rel=1e-5)


@pytest.mark.parametrize("make", [perceptron, small_network])
def test_the_rs_loss_has_the_gradient_of_finite_differences(make) -> None:  # type: ignore[no-untyped-def]
    network = narrow(make()).double()
    loss = RSLoss(network, *(end.double() for end in BOX))
    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.grad is None:
            continue
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter += step * direction
                ends.append(float(loss().detach()))
                parameter -= step * direction
        slope = (ends[0] - ends[1]) / 2e-6
        assert slope == pytest.approx(float((parameter.grad * direction).sum()), abs=1e-6, rel=1e-4)


def test_bounds_behind_the_rs_loss_hold_what_images_show() -> None:
    """The loss of a network whose one ReLU reads a BatchNorm with a negative scale."""
    network = small_network().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-1, 1)
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    real = torch.tanh

    def spy(x: torch.Tensor) -> torch.Tensor:
        seen.append((x.detach(), x.detach()))
        return real(x)

    images = torch.rand(200, 1, 4, 4) * (BOX[1] - BOX[0]) + BOX[0]
    values: list[torch.Tensor] = []
    hooks = [
        m.register_forward_hook(lambda _, __, out: values.append(out))
        for m in network.modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        network(images)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "tanh", spy)
            RSLoss(network, *BOX)()
    for hook in hooks:
        hook.remove()
    # 1 + l u is at most what the values that were seen give where they lie on both sides of zero.
    first = values[0]
    product = first.amin(0) * first.amax(0)
    both = product < 0
    assert both.any()
    assert (seen[0][0][0][both] <= 1 + product[both] + 1e-5).all()


def test_training_by_the_rs_loss_lowers_it() -> None:
    found = []
    for weight in (0.0, 1.0):
        network = narrow(perceptron())
        settings = FinetuneSettings(
            epochs=5,
            stability=InducementSettings(rs_loss=weight),
            training=recipe(learning_rate=0.05, momentum=0.9),
        )
        finetune(network, classified_stream(40), classified(12), settings)
        found.append(slow_rs_loss(network))
    assert found[1] < found[0] - 0.05


def test_a_network_without_known_bounds_is_one_clear_error() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Sigmoid(), nn.Linear(4, 3))
    with pytest.raises(TinygrowError, match=r"knows no bounds of 'sigmoid'.*rs_loss to 0"):
        RSLoss(network, *BOX)()


@pytest.mark.parametrize("name", ["l1_norm", "l1_weights", "rs_loss"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(SettingError, match=f"{name} is -1"):
        replace(InducementSettings(), **{name: -1})
