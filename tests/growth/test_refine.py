"""Refined neurons in networks: moments, signs, a transparent norm, whole extensions."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.growth import oracle
from tests.growth.neurons.scenes import request
from tests.growth.scenes import (
    EXACT,
    conv_pair,
    desired_update_alone,
    linear_pair,
    patterns,
    quick_settings,
    random_units,
    resnet,
    site_of,
    stream,
    widened,
)
from tinygrow.errors import TinygrowError
from tinygrow.growth.amplitude import choose_amplitude, normalized
from tinygrow.growth.discovery import find_sites
from tinygrow.growth.extend import extend
from tinygrow.growth.neurons import tiny
from tinygrow.growth.record import facts_of
from tinygrow.growth.refine import refined, refit_moments
from tinygrow.growth.refit import choose_and_fit
from tinygrow.growth.signs import both_signs, neuron_signs
from tinygrow.growth.sites import Site, sites_of
from tinygrow.growth.surgery import NewUnits, as_units, measure_running_statistics, widen
from tinygrow.growth.transparent import transparent
from tinygrow.settings.growth import AmplitudeSettings, RefinementSettings
from tinygrow.training.batches import Batch
from tinygrow.training.loop import Trainer


def loss(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(copy.deepcopy(network).train()(x), y))


# --- moments


@pytest.mark.parametrize("kind", ["linear", "conv", "strided"])
def test_moments_are_those_of_the_new_channels_beside_a_bias(kind: str) -> None:
    if kind == "linear":
        network, (x, y) = linear_pair(activation=torch.relu)
    else:
        second = {"stride": 2} if kind == "strided" else None
        network, (x, y) = conv_pair(activation=torch.relu, second=second)
    site = site_of(network)
    units = random_units(network, site, 3)
    halves = [(x[::2], y[::2]), (x[1::2], y[1::2])]

    found = refit_moments(network, site, units, halves, EXACT)

    with torch.no_grad():
        h = widened(network, units).hidden(x)[:, -3:]
    v = desired_update_alone(network, (x, y))
    S1, M, _ = oracle.update_moments(h, v, network.second)
    row, weight = S1[-1, :-1], S1[-1, -1]
    np.testing.assert_allclose(
        found.gram.numpy(), S1[:-1, :-1] - np.outer(row, row) / weight, atol=1e-10
    )
    np.testing.assert_allclose(
        found.cross.numpy(), M[:-1] - np.outer(row, M[-1]) / weight, atol=1e-10
    )
    outputs = v.transpose(0, 1).flatten(1)
    np.testing.assert_allclose(found.fisher.numpy(), (outputs @ outputs.T).numpy() / len(x))


def test_the_fit_is_no_worse_than_any_other_fan_out() -> None:
    """Its drop of (1/n) sum ||V - sum omega h||^2, the bias free, bounds that of other weights."""
    network, batch = conv_pair(activation=torch.relu)
    site = site_of(network)
    units = random_units(network, site, 4)
    moments = refit_moments(network, site, units, [batch], EXACT)

    def drop(omega: torch.Tensor) -> float:
        flat = omega.reshape(len(moments.gram), -1)
        return float(2 * (flat * moments.cross).sum() - (flat * (moments.gram @ flat)).sum())

    fit = choose_and_fit(moments, 9, 4, 1e-12, None)
    best = torch.empty_like(fit.fan_out)
    best[fit.chosen] = fit.fan_out
    other = units.fan_out.flatten(2).permute(1, 2, 0)
    scales = [drop(other * factor) for factor in torch.linspace(-0.2, 0.2, 21)]
    assert drop(best) >= max(scales)
    assert drop(best) >= drop(best * 1.01) and drop(best) >= drop(best + 1e-3 * other)


# --- signs


def test_the_sign_of_each_neuron_is_that_of_the_larger_gain() -> None:
    network, (x, y) = conv_pair(images=12, activation=torch.relu, normed=True)
    site = site_of(network)
    units = random_units(network, site, 6)
    signs = neuron_signs(network, site, units, (x, y))

    before = loss(network, x, y)
    for k in range(6):
        one = NewUnits(units.fan_in[[k]], units.bias[[k]], units.fan_out[:, [k]] * 1e-6)
        falls = [
            before - loss(widened(network, one.signed(torch.tensor([sign]))), x, y)
            for sign in (1.0, -1.0)
        ]
        assert signs[k] == (1.0 if falls[0] >= falls[1] else -1.0)
    assert len(set(signs.tolist())) == 2  # else the test could not fail


def test_signs_by_neuron_lower_the_loss_at_least_as_fast_as_by_group() -> None:
    network, batch = conv_pair(images=12, activation=torch.relu, normed=True)
    site = site_of(network)
    units = random_units(network, site, 6)
    common = AmplitudeSettings(
        search="fixed", fixed_factor=1e-8, normalization="none", sign_amplitude=1e-8
    )
    falls = {}
    for sign in ("none", "group", "neuron"):
        found = choose_amplitude(network, site, units, [batch], replace(common, sign=sign))
        falls[sign] = found.loss_before - found.loss_after
    assert falls["neuron"] > falls["group"] >= falls["none"]


def test_both_signs_are_the_units_and_their_mirror_images() -> None:
    network, _ = conv_pair(normed=True)
    units = transparent_units(network)
    pairs = both_signs(units)
    assert torch.equal(pairs.fan_in[3:], -units.fan_in) and torch.equal(
        pairs.fan_in[:3], units.fan_in
    )
    assert torch.equal(pairs.fan_out[:, 3:], -units.fan_out)
    assert torch.equal(pairs.bias[3:], -units.bias)
    assert torch.equal(pairs.norm_bias[3:], -units.norm_bias)
    assert torch.equal(pairs.norm_weight[3:], units.norm_weight)


# --- transparent normalisation


def transparent_units(network: torch.nn.Module) -> NewUnits:
    units = random_units(network, site_of(network), 3)
    batch = torch.randn(20, 2, 5, 6, dtype=torch.float64), torch.randint(3, (20,))
    return transparent(network, site_of(network), units, [batch])


@pytest.mark.parametrize("training", [True, False])
def test_a_transparent_norm_is_the_identity_for_new_channels(training: bool) -> None:
    network, architecture = resnet()
    site = sites_of(architecture)[1]
    x, y = torch.randn(64, 3, 8, 8) * 2 + 1, torch.randint(3, (64,))
    units = random_units(network, site, 3)
    units = transparent(network, site, units.scaled(3.0, 1.0), [(x, y)])

    widen(network, site, units)
    measure_running_statistics(network, [(x, y)])
    block = network.stages[1].block0
    z, normed = block.conv1, block.norm1
    kept: dict[str, torch.Tensor] = {}
    z.register_forward_hook(lambda _, __, output: kept.__setitem__("z", output))
    normed.register_forward_hook(lambda _, __, output: kept.__setitem__("n", output))
    with torch.no_grad():
        network.train(training)(x)
    new, same = kept["n"][:, -3:], kept["z"][:, -3:]
    # The running variance is the unbiased one: 1 / (2 * 1024) of a difference in training mode.
    allowed = 1e-3 if training else 1e-6
    assert float((new - same).abs().max()) <= allowed * float(same.abs().max())
    assert (
        float((kept["n"][:, :-3] - kept["z"][:, :-3]).abs().max()) > 0.1
    )  # the old are normalised


def test_scaled_and_signed_units_stay_transparent() -> None:
    network, (x, y) = conv_pair(images=30, normed=True)
    site = site_of(network)
    units = transparent(network, site, random_units(network, site, 3), [(x, y)])
    signs = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    for changed in (units.scaled(-2.0, 1.0), units.signed(signs)):
        wide = widened(network, changed)
        measure_running_statistics(wide, [(x, y)])
        wide.eval()
        with torch.no_grad():
            z = wide.first(x)[:, -3:]
            torch.testing.assert_close(wide.norm(wide.first(x))[:, -3:], z, rtol=1e-4, atol=1e-4)


def test_the_search_leaves_the_fan_in_of_transparent_units() -> None:
    network, batch = conv_pair(images=30, normed=True, activation=torch.relu)
    site = site_of(network)
    settings = AmplitudeSettings(transparent_norm=True, search="grid", smallest_exponent=-6)
    units = random_units(network, site, 3)
    wanted = normalized(network, site, units, [batch], settings)
    found = choose_amplitude(network, site, units, [batch], settings)
    assert found.units is not None and not found.rejected
    torch.testing.assert_close(found.units.fan_in, found.sign * wanted.fan_in)
    torch.testing.assert_close(found.units.norm_bias, found.sign * wanted.norm_bias)
    torch.testing.assert_close(found.units.fan_out, found.sign * found.factor * wanted.fan_out)


# --- whole extensions


REFINEMENTS = {
    "scale": RefinementSettings(fan_out="scale"),
    "refit": RefinementSettings(fan_out="refit"),
    "fisher": RefinementSettings(fan_out="refit", metric="fisher", candidates=3),
}


@pytest.mark.parametrize("method", ["tiny", "random"])
@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_refined_extensions_lower_the_loss_on_fresh_images(method: str, refinement: str) -> None:
    settings = quick_settings(method=method, refinement=REFINEMENTS[refinement])
    network, architecture = resnet(middle=(1, 2))
    trainer = Trainer(network, stream(), settings.training, total_epochs=10.0)
    trainer.train(1.0)
    x, y = next(patterns(96, seed=7).batches(96))
    before = loss(network, x, y)

    done = extend(
        network,
        sites_of(architecture)[1],
        4,
        trainer,
        settings,
        generator=torch.Generator().manual_seed(0),
    )

    assert done.added == 4 and done.amplitude is not None and done.amplitude.sign == 1
    if method == "random":  # what the estimate scales by images is not taken for solving
        assert done.proposal.seconds_solve == 0.0 < done.proposal.seconds_statistics
    assert facts_of(done).columns.get("singular_values_kept", 4) == 4  # of all candidates
    assert loss(network, x, y) < before


def pooled_and_flattened() -> tuple[torch.nn.Module, Site, Batch]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 5),
    )
    x, y = torch.randn(16, 3, 5, 5), torch.randint(5, (16,))
    return network, find_sites(network, x)[0], (x, y)


@pytest.mark.parametrize("kind", ["1x1", "pooled", "linear"])
def test_the_fan_out_of_a_single_tap_is_scaled_neuron_by_neuron(kind: str) -> None:
    if kind == "pooled":
        network, site, batch = pooled_and_flattened()
    elif kind == "1x1":
        network, batch = conv_pair(activation=torch.relu, second={"kernel_size": 1, "padding": 0})
        site = site_of(network)
    else:
        network, batch = linear_pair(activation=torch.relu)
        site = site_of(network)
    refinement = RefinementSettings(fan_out="scale")
    asked = request(network, site, batch, quick_settings(refinement=refinement), count=2)
    proposal = tiny.propose(asked)

    units, _ = refined(asked, proposal)

    plain = as_units(proposal.neurons, *site.layers(network))
    one, other = (u.fan_out.transpose(0, 1).flatten(1).double() for u in (units, plain))
    assert one.any() and units.fan_out.shape == plain.fan_out.shape
    cosine = F.cosine_similarity(one, other).abs()
    assert (one.any(1).logical_not() | (cosine > 1 - 1e-6)).all()


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(TinygrowError, match="candidates"):
        RefinementSettings(candidates=2)


def test_neurons_that_come_with_their_amplitude_are_left_alone() -> None:
    refinement = RefinementSettings(fan_out="refit", candidates=2)
    settings = quick_settings(method="gradmax", refinement=refinement)
    network, architecture = resnet(middle=(1, 2))
    trainer = Trainer(network, stream(), settings.training, total_epochs=10.0)
    site = sites_of(architecture)[1]

    done = extend(network, site, 3, trainer, settings, generator=torch.Generator())

    first, second = site.layers(network)
    factor = settings.amplitude.fixed_factor
    assert done.added == 3
    assert not first.weight[-3:].any()
    norms = second.weight[:, -3:].transpose(0, 1).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.full((3,), factor))
