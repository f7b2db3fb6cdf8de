import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.growth.scenes import (
    NEVER,
    SITE,
    conv_pair,
    linear_pair,
    mean_loss,
    random_units,
    resnet,
    site_of,
    widened,
)
from tinygrow.growth import amplitude as module
from tinygrow.growth.amplitude import (
    Trial,
    better_sign,
    choose_amplitude,
    normalize,
)
from tinygrow.growth.sites import sites_of
from tinygrow.growth.surgery import NewUnits
from tinygrow.settings.growth import AmplitudeSettings

GRID = AmplitudeSettings(search="grid", smallest_exponent=-4, sign_amplitude=1e-2)
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


# --- normalisation


@pytest.mark.parametrize("kind", ["linear", "conv", "normed"])
def test_functional_normalization_makes_the_norms_equal(kind: str) -> None:
    network, batch = linear_pair() if kind == "linear" else conv_pair(normed=kind == "normed")
    site = site_of(network)
    network.train()
    old = network.first.weight.shape[0]
    raw = random_units(network, site, 2).scaled(1e-3, 1e4)

    units = normalize(network, site, raw, batch)

    wide = widened(network, units)
    with torch.no_grad():
        z = wide.first(batch[0])
        h = wide.hidden(batch[0])
        outputs = network.second(network.hidden(batch[0]))
        # The new units alone: the difference that they make to the second layer's output.
        added = wide.second(h) - wide.second(
            h * (torch.arange(h.shape[1]) < old).reshape(1, -1, *[1] * (h.ndim - 2))
        )
    assert float(z[:, old:].norm()) == pytest.approx(float(z[:, :old].norm()), rel=1e-6)
    assert float(added.norm()) == pytest.approx(float(outputs.norm()), rel=1e-6)
    # One factor for all of fan-in and bias, one for all of fan-out.
    for new, before in (
        (units.fan_in, raw.fan_in),
        (units.bias, raw.bias),
        (units.fan_out, raw.fan_out),
    ):
        ratio = new / before
        torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio), **CLOSE)
    ratios = units.fan_in.flatten()[0] / raw.fan_in.flatten()[0], units.bias[0] / raw.bias[0]
    torch.testing.assert_close(*ratios, **CLOSE)


def test_normalization_can_be_left_out() -> None:
    network, batch = linear_pair()
    raw = random_units(network, SITE, 2)
    settings = replace(GRID, normalization="none", sign="none", min_gain=0.0)

    chosen = choose_amplitude(network, SITE, raw, [batch], settings)

    assert chosen.units is not None
    factor = chosen.factor**0.5 if chosen.factor else 1.0
    torch.testing.assert_close(chosen.units.fan_in, raw.fan_in * factor, **CLOSE)


# --- sign


@pytest.mark.parametrize("kind", ["linear", "conv", "normed"])
@pytest.mark.parametrize("seed", range(3))
def test_the_sign_with_the_lower_loss_is_taken(kind: str, seed: int) -> None:
    network, batch = (
        linear_pair(activation=torch.relu, seed=seed)
        if kind == "linear"
        else conv_pair(activation=torch.relu, normed=kind == "normed", seed=seed)
    )
    site = site_of(network)
    raw = random_units(network, site, 2, seed=seed)
    units = normalize(network, site, raw, batch)
    losses = {
        sign: mean_loss(widened(network, units.scaled(0.1 * sign, 0.1 * sign)), [batch])
        for sign in (1, -1)
    }
    assert abs(losses[1] - losses[-1]) > 1e-9

    chosen = choose_amplitude(network, site, raw, [batch], GRID)

    assert chosen.sign == min(losses, key=losses.__getitem__)
    # Turned by the caller, they are turned back. (Normalised, they would differ in more: a ReLU
    # of the turned units has another norm.)
    plain = replace(GRID, normalization="none")
    kept = choose_amplitude(network, site, units, [batch], plain)
    turned = choose_amplitude(network, site, units.scaled(-1, -1), [batch], plain)
    assert turned.sign == -kept.sign
    assert turned.losses == kept.losses
    for units_given in (kept, turned):
        added = mean_loss(widened(network, units_given.units), [batch])
        assert added == pytest.approx(units_given.loss_after, rel=1e-12)


# Float64 rounds the losses at 1e-15; they differ by more than 1e-12 with these seeds.
@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5, 6])
def test_rounding_does_not_decide_the_sign_of_a_float32_network(seed: int) -> None:
    # At the default amplitude, 1e-8, and without BatchNorm, float32 losses hardly tell signs apart.
    exact, (x, y) = linear_pair(images=100, activation=torch.relu, seed=seed)
    raw = random_units(exact, SITE, 2, seed=seed)
    rough = copy.deepcopy(exact).float()
    batch = (x.float(), y)
    exact.load_state_dict(rough.state_dict())
    units = normalize(exact, SITE, raw, (batch[0].double(), y))
    losses = [
        mean_loss(widened(exact, units.scaled(sign * 1e-4, sign * 1e-4)), [(batch[0].double(), y)])
        for sign in (1, -1)
    ]
    single = NewUnits(raw.fan_in.float(), raw.bias.float(), raw.fan_out.float())

    chosen = choose_amplitude(rough, SITE, single, [batch], AmplitudeSettings())

    assert abs(losses[0] - losses[1]) > 1e-12
    assert chosen.sign == (1 if losses[0] < losses[1] else -1)
    assert chosen.units.fan_in.dtype == torch.float32


def test_label_smoothing_may_turn_the_sign() -> None:
    differing = 0
    for seed in range(10):
        network, (x, y) = linear_pair(activation=torch.relu, seed=seed)
        units = random_units(network, SITE, 2, seed=seed)
        wanted = []
        for smoothing in (0.0, 0.9):
            losses = []
            for scale in (0.1, -0.1):
                with torch.no_grad():
                    logits = widened(network, units.scaled(scale, scale))(x)
                losses.append(float(F.cross_entropy(logits, y, label_smoothing=smoothing)))
            wanted.append(1 if losses[0] <= losses[1] else -1)

            sign = better_sign(Trial(network, SITE, units), (x, y), 0.01, smoothing)

            assert sign == wanted[-1]
        differing += wanted[0] != wanted[1]

    assert differing > 0


def test_the_sign_can_be_left_as_the_solver_gave_it() -> None:
    network, batch = linear_pair(activation=torch.relu)
    signs = set()
    for seed in range(4):
        raw = random_units(network, SITE, 2, seed=seed)
        signs.add(choose_amplitude(network, SITE, raw, [batch], replace(GRID, sign="none")).sign)

    assert signs == {1}


# --- all three together


@pytest.mark.parametrize("kind", ["linear", "normed"])
def test_the_curve_is_the_loss_of_the_widened_network(kind: str) -> None:
    network, (x, y) = linear_pair() if kind == "linear" else conv_pair(images=9, normed=True)
    site = site_of(network)
    # The mini-batch's statistics count, whatever the mode; those of the whole network stay.
    network.eval()
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]
    raw = random_units(network, site, 2)

    chosen = choose_amplitude(network, site, raw, batches, GRID)

    units = normalize(network, site, raw, batches[0])
    for gamma, loss in zip(chosen.amplitudes, chosen.losses, strict=True):
        root = chosen.sign * gamma**0.5
        expected = mean_loss(widened(network, units.scaled(root, root)), batches)
        assert loss == pytest.approx(expected, rel=1e-12)
    assert chosen.losses[0] == pytest.approx(mean_loss(network, batches), rel=1e-12)
    assert chosen.factor == chosen.amplitudes[chosen.losses.index(min(chosen.losses))]
    assert chosen.loss_before == chosen.losses[0]
    assert chosen.loss_after == min(chosen.losses)
    # What is handed on is what was measured.
    assert chosen.units is not None
    added = mean_loss(widened(network, chosen.units), batches)
    assert added == pytest.approx(chosen.loss_after, rel=1e-12)


def test_label_smoothing_enters_the_loss() -> None:
    network, batch = linear_pair()

    chosen = choose_amplitude(network, SITE, random_units(network, SITE, 2), [batch], GRID, 0.3)

    expected = F.cross_entropy(network(batch[0]), batch[1], label_smoothing=0.3)
    assert chosen.loss_before == pytest.approx(float(expected.detach()), rel=1e-12)


def test_amplitude_zero_uses_the_code_path_of_every_other_amplitude() -> None:
    network, batch = conv_pair(normed=True)
    site = site_of(network)
    trial = Trial(network, site, random_units(network, site, 2))

    trial.set(0.0, 0.0)

    assert trial.network.first.out_channels == 5
    assert trial.loss([batch], 0.0) == pytest.approx(mean_loss(network, [batch]), rel=1e-12)


def test_the_searched_network_is_left_as_it_was() -> None:
    network, architecture = resnet()
    network.train()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    generator = torch.get_rng_state()
    batch = (
        torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.arange(8) % 3,
    )
    site = sites_of(architecture)[0]

    choose_amplitude(network, site, random_units(network, site, 2), [batch], GRID)

    after = network.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[k], v) for k, v in state.items())
    assert network.training
    assert torch.equal(torch.get_rng_state(), generator)


# --- rejection

REJECTING = replace(GRID, min_gain=NEVER)


@pytest.mark.parametrize("kind", ["linear", "normed"])
def test_rejected_neurons_may_be_kept_without_a_voice(kind: str) -> None:
    network, batch = linear_pair() if kind == "linear" else conv_pair(normed=True)
    site = site_of(network)

    chosen = choose_amplitude(network, site, random_units(network, site, 2), [batch], REJECTING)

    assert chosen.rejected
    assert chosen.factor == 0.0
    assert chosen.loss_after == chosen.loss_before
    assert chosen.units is not None
    assert len(chosen.units) == 2
    assert not chosen.units.fan_out.any()
    # Fan-in as normalised, so that the fan-out gets gradients.
    assert chosen.units.fan_in.abs().min() > 0
    wide = widened(network, chosen.units)
    torch.testing.assert_close(wide(batch[0]), network(batch[0]), **CLOSE)


def test_rejected_neurons_may_be_skipped() -> None:
    network, batch = linear_pair()
    settings = replace(REJECTING, when_rejected="skip")

    chosen = choose_amplitude(network, SITE, random_units(network, SITE, 2), [batch], settings)

    assert chosen.rejected
    assert chosen.units is None


def test_the_gain_decides_what_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = linear_pair()
    monkeypatch.setattr(module, "search", lambda *_: ([0.0, 0.25, 0.5], [4.0, 3.99, 4.1]))
    raw = random_units(network, SITE, 2)

    def factor(min_gain: float) -> float:
        return choose_amplitude(
            network, SITE, raw, [batch], replace(GRID, min_gain=min_gain)
        ).factor

    # The gain is 0.0025 of the loss.
    assert factor(0.0024) == 0.25
    assert factor(0.0026) == 0.0


def test_no_gain_at_all_is_a_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = linear_pair()
    monkeypatch.setattr(module, "search", lambda *_: ([0.0, 0.25], [4.0, 4.0]))

    chosen = choose_amplitude(
        network, SITE, random_units(network, SITE, 2), [batch], replace(GRID, min_gain=0.0)
    )

    assert chosen.rejected


class Casting(nn.Module):
    """May name the precision of its numbers, as much code does."""

    def __init__(self, casts: bool) -> None:
        super().__init__()
        self.first, self.second, self.casts = nn.Linear(6, 4), nn.Linear(4, 3), casts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x.float() if self.casts else x)))


def test_a_network_that_knows_no_float64_gets_the_better_signs_too() -> None:
    network, plain = Casting(casts=True), Casting(casts=False)
    plain.load_state_dict(network.state_dict())
    batch = torch.randn(40, 6), torch.randint(3, (40,))
    signs = []
    for seed in range(6):
        units = random_units(network, SITE, 2, seed)
        found, right = (choose_amplitude(n, SITE, units, [batch], GRID) for n in (network, plain))
        assert found.sign == right.sign
        signs.append(found.sign)
    assert {1, -1} == set(signs)
