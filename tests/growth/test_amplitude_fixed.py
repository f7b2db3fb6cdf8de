"""Amplitudes that are not searched for, and the normalisation of weights."""

from dataclasses import replace

import pytest
import torch

from tests.growth.scenes import (
    NEVER,
    SITE,
    conv_pair,
    linear_pair,
    mean_loss,
    random_units,
    site_of,
    widened,
)
from tinygrow.errors import TinygrowError
from tinygrow.growth.amplitude import choose_amplitude, normalize, normalize_weights
from tinygrow.settings.growth import AmplitudeSettings

GRID = AmplitudeSettings(search="grid", smallest_exponent=-4, sign_amplitude=1e-2)
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.mark.parametrize("bias", [True, False])
def test_parametric_normalization_makes_the_mean_square_norm_of_a_neuron_1(bias: bool) -> None:
    network, _ = conv_pair(first={"bias": bias})
    raw = random_units(network, SITE, 5).scaled(1e-3, 1e4)

    units = normalize_weights(raw)

    alpha = units.fan_in.flatten(1)
    if bias:
        alpha = torch.cat([alpha, units.bias[:, None]], 1)
    omega = units.fan_out.transpose(0, 1).flatten(1)
    for vectors in (alpha, omega):
        assert float(vectors.square().sum(1).mean()) == pytest.approx(1.0, rel=1e-12)
        assert vectors.square().sum(1).std() > 0.05  # of all neurons together, not of each
    factor = units.fan_in[0, 0, 0, 0] / raw.fan_in[0, 0, 0, 0]
    torch.testing.assert_close(units.fan_in, raw.fan_in * factor, **CLOSE)
    if bias:
        torch.testing.assert_close(units.bias, raw.bias * factor, **CLOSE)


def test_parametric_normalization_leaves_zeros_alone() -> None:
    network, _ = linear_pair()
    raw = random_units(network, SITE, 2)

    silent = normalize_weights(raw.scaled(0.0, 1.0))
    deaf = normalize_weights(raw.scaled(1.0, 0.0))

    assert not silent.fan_in.any() and not silent.bias.any()
    assert float(silent.fan_out.square().sum()) == pytest.approx(2.0)
    assert not deaf.fan_out.any()


def test_parametric_normalization_comes_before_the_amplitude() -> None:
    network, batch = linear_pair()
    raw = random_units(network, SITE, 2)
    settings = replace(GRID, normalization="parametric", sign="none")

    chosen = choose_amplitude(network, SITE, raw, [batch], settings)

    units = normalize_weights(raw)
    for gamma, loss in zip(chosen.amplitudes, chosen.losses, strict=True):
        wide = widened(network, units.scaled(gamma**0.5, gamma**0.5))
        assert loss == pytest.approx(mean_loss(wide, [batch]), rel=1e-12)


def test_a_fixed_amplitude_is_taken_whatever_it_does_to_the_loss() -> None:
    network, batch = linear_pair(activation=torch.relu)
    fixed = replace(GRID, search="fixed", fixed_factor=2.0, sign="none", min_gain=NEVER)
    rises = set()
    for seed in range(6):
        raw = random_units(network, SITE, 2, seed=seed)

        chosen = choose_amplitude(network, SITE, raw, [batch], fixed)

        units = normalize(network, SITE, raw, batch)
        assert chosen.amplitudes == (0.0, 2.0)
        assert chosen.factor == 2.0
        assert not chosen.rejected
        torch.testing.assert_close(chosen.units.fan_in, units.fan_in * 2**0.5, **CLOSE)
        torch.testing.assert_close(chosen.units.fan_out, units.fan_out * 2**0.5, **CLOSE)
        assert chosen.loss_before == pytest.approx(mean_loss(network, [batch]), rel=1e-12)
        after = mean_loss(widened(network, chosen.units), [batch])
        assert chosen.loss_after == pytest.approx(after, rel=1e-12)
        rises.add(chosen.loss_after > chosen.loss_before)

    assert rises == {True, False}


def test_a_fixed_amplitude_takes_the_better_sign() -> None:
    network, batch = linear_pair(activation=torch.relu)
    for seed in range(4):
        raw = random_units(network, SITE, 2, seed=seed)
        searched = choose_amplitude(network, SITE, raw, [batch], GRID)
        fixed = choose_amplitude(network, SITE, raw, [batch], replace(GRID, search="fixed"))
        assert fixed.sign == searched.sign
        unit = normalize(network, SITE, raw, batch).scaled(fixed.sign * 1e-3**0.5, 0.0)
        torch.testing.assert_close(fixed.units.fan_in, unit.fan_in, **CLOSE)


@pytest.mark.parametrize("kind", ["linear", "normed"])
def test_without_fan_in_the_fan_out_carries_all_of_the_amplitude(kind: str) -> None:
    network, batch = linear_pair() if kind == "linear" else conv_pair(normed=True)
    site = site_of(network)
    silent = replace(random_units(network, site, 2).scaled(0.0, 1.0), offset=1e-6)
    settings = AmplitudeSettings(normalization="parametric", sign="none", search="fixed")

    chosen = choose_amplitude(network, site, silent, [batch], settings)

    assert not chosen.units.fan_in.any()
    expected = normalize_weights(silent).fan_out * 1e-3
    torch.testing.assert_close(chosen.units.fan_out, expected, **CLOSE)
    assert chosen.units.offset == 1e-6
    # What was measured is what is handed on, offset included.
    after = mean_loss(widened(network, chosen.units), [batch])
    assert chosen.loss_after == pytest.approx(after, rel=1e-15)
    assert chosen.loss_after != chosen.loss_before


def test_an_overflow_at_the_fixed_amplitude_is_said() -> None:
    network, batch = linear_pair(activation=torch.relu)
    settings = replace(GRID, search="fixed", fixed_factor=1e308, normalization="none", sign="none")
    huge = random_units(network, SITE, 2).scaled(1e160, 1.0)

    with pytest.raises(TinygrowError, match=r"^the loss is nan .* lower amplitude.fixed_factor or"):
        choose_amplitude(network, SITE, huge, [batch], settings)
