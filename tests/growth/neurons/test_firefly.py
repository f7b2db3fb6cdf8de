"""Firefly: what its steps do to candidates, and which of them it keeps."""

from dataclasses import replace

import pytest
import torch

from tests.growth.neurons.scenes import request
from tests.growth.scenes import (
    EXACT,
    PairNet,
    conv_pair,
    linear_pair,
    mean_loss,
    site_of,
    widened,
)
from tinygrow.growth.bottleneck import Neurons
from tinygrow.growth.neurons import firefly
from tinygrow.growth.surgery import as_neurons, as_units
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.methods import FireflySettings, MethodsSettings
from tinygrow.training.batches import Batch

OWN = FireflySettings(steps=10, candidates=3.0)
SETTINGS = GrowthSettings(method="firefly", statistics=EXACT, methods=MethodsSettings(firefly=OWN))


def scene(kind: str) -> tuple[PairNet, Batch]:
    network, batch = linear_pair() if kind == "linear" else conv_pair(normed=kind == "normed")
    return network.train(), batch


def drawn(network: PairNet, count: int) -> Neurons:
    generator = torch.Generator().manual_seed(3)
    p, q = network.first.weight[0].numel() + 1, network.second.weight[:, 0].numel()
    alpha = torch.randn(count, p, generator=generator, dtype=torch.float64)
    omega = 0.1 * torch.randn(count, q, generator=generator, dtype=torch.float64)
    none = torch.empty(0)
    return Neurons(alpha, omega, none, none)


def loss(network: PairNet, neurons: Neurons, batch: Batch) -> float:
    return mean_loss(widened(network, as_units(neurons, network.first, network.second)), [batch])


@pytest.mark.parametrize("kind", ["linear", "conv", "normed"])
def test_the_steps_lower_the_loss_at_equal_norms(kind: str) -> None:
    network, batch = scene(kind)
    begin = drawn(network, 4)

    end = firefly.trained(network, site_of(network), begin, [batch], OWN)

    for now, then in ((end.alpha, begin.alpha), (end.omega, begin.omega)):
        torch.testing.assert_close(now.norm(dim=1), then.norm(dim=1), rtol=1e-10, atol=0)
        assert (now != then).flatten(1).any(1).all()
    assert loss(network, end, batch) < loss(network, begin, batch) - 1e-3


def test_each_step_takes_the_next_mini_batch() -> None:
    network, (x, y) = scene("linear")
    seen: list[float] = []
    halves = [(x[:20], y[:20]), (x[20:], y[20:])]
    network.first.register_forward_hook(lambda _, inputs, __: seen.append(float(inputs[0][0, 0])))

    firefly.trained(network, site_of(network), drawn(network, 2), halves, replace(OWN, steps=3))

    assert seen == [float(x[0, 0]), float(x[20, 0]), float(x[0, 0])]


@pytest.mark.parametrize("kind", ["linear", "conv", "normed"])
def test_the_first_order_gain_is_the_slope_of_the_loss(kind: str) -> None:
    network, (x, y) = scene(kind)
    site, neurons, amplitude = site_of(network), drawn(network, 3), 1e-5
    third = len(y) // 3  # batches of unequal sizes
    batches = [(x[:third], y[:third]), (x[third:], y[third:])]

    gains = firefly.first_order_gains(network, site, neurons, batches)

    for k in range(3):
        alone = replace(neurons, alpha=neurons.alpha[[k]], omega=neurons.omega[[k]])
        losses = [
            mean_loss(
                widened(network, as_units(alone, network.first, network.second).scaled(1.0, s)),
                batches,
            )
            for s in (amplitude, -amplitude)
        ]
        slope = (losses[1] - losses[0]) / (2 * amplitude)
        assert float(gains[k]) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_the_candidates_of_the_largest_gain_are_kept(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batch = scene(kind)
    site, candidates = site_of(network), []

    def watch(*arguments: object, **named: object) -> Neurons:
        candidates.append(original(*arguments, **named))
        return candidates[-1]

    original = firefly.trained
    monkeypatch.setattr(firefly, "trained", watch)
    proposal = firefly.propose(request(network, site, batch, SETTINGS, count=2))

    assert len(candidates[0].alpha) == 6
    gains = firefly.first_order_gains(network, site, candidates[0], [batch])
    best = gains.topk(2).indices
    assert torch.equal(proposal.neurons.alpha, candidates[0].alpha[best])
    assert torch.equal(proposal.neurons.omega, candidates[0].omega[best])
    assert proposal.settled is None  # the amplitude is searched for
    assert proposal.images == (OWN.steps + 1) * len(batch[1])


def test_candidates_begin_small() -> None:
    network, batch = scene("linear")
    still = replace(SETTINGS, methods=MethodsSettings(firefly=replace(OWN, learning_rate=1e-12)))
    proposal = firefly.propose(request(network, site_of(network), batch, still, count=3))
    units = as_units(proposal.neurons, network.first, network.second)
    assert torch.equal(as_neurons(units).alpha, proposal.neurons.alpha)
    wide = widened(network, units)
    with torch.no_grad():
        before = network.second(network.hidden(batch[0]))
        added = wide.second(wide.hidden(batch[0])) - before
    # Of nine candidates, which together have an amplitude of a tenth.
    assert 0 < float(added.norm()) < 0.2 * float(before.norm())
