"""What holds of every method, and of all that keep the function."""

import copy
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from tests.growth.neurons.scenes import request, trained
from tests.growth.scenes import patterns, perceptron, quick_settings, stream
from tinygrow.growth.extend import extend
from tinygrow.growth.grow import grow
from tinygrow.growth.log import rows_to_csv
from tinygrow.growth.neurons.method import METHODS
from tinygrow.growth.sites import sites_of
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.methods import MethodsSettings, Net2WiderSettings
from tinygrow.settings.plan import WhereSettings
from tinygrow.settings.training import TrainingSettings

PLAIN = TrainingSettings(batch_size=16, learning_rate=0.05, momentum=0.0, weight_decay=0.0)
KEEPS = ["gradmax", "net2wider", "random_zero", "random_pairs"]
CLOSED_FORM = {"tiny", "whitened", "gradmax"}
COUNT = 2
"""Neurons: at the head of the perceptron the desired update has no more directions."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_methods_are_named_as_in_the_settings() -> None:
    names = get_args(get_type_hints(GrowthSettings)["method"])
    assert set(METHODS) | {"none"} == set(names)
    homes = [propose.__module__.rsplit(".", 1)[1] for propose in METHODS.values()]
    assert homes == list(METHODS)  # one file a method, of its name


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
@pytest.mark.parametrize("method", METHODS)
def test_within_two_steps_every_new_weight_has_moved(kind: str, method: str) -> None:
    # Silent units under ReLU, twins and dead units would not; then comparisons are rigged.
    settings = quick_settings(method=method, training=PLAIN, batch_growth="constant")
    trainer, architecture = trained(kind, settings)
    sites = sites_of(architecture)
    for site in sites:
        done = extend(trainer.network, site, COUNT, trainer, settings, generator=generator())
        assert done.added == COUNT
    layers = [site.layers(trainer.network) for site in sites]
    before = [(a.weight[-COUNT:].clone(), b.weight[:, -COUNT:].clone()) for a, b in layers]
    seen = trainer.images_seen

    trainer.train(32 / 96)

    assert trainer.images_seen - seen == 32
    for (first, second), (fan_in, fan_out) in zip(layers, before, strict=True):
        for now, then in ((first.weight[-COUNT:], fan_in), (second.weight[:, -COUNT:], fan_out)):
            # Between two units of the perceptron that are never active together nothing moves.
            assert (now != then).double().mean() > (0.95 if kind == "resnet" else 0.6)
        assert ((first.weight[-COUNT:] != fan_in).flatten(1).any(1)).all()
        assert ((second.weight[:, -COUNT:] != fan_out).transpose(0, 1).flatten(1).any(1)).all()


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
@pytest.mark.parametrize("method", KEEPS)
def test_methods_that_keep_the_function_do_so_in_both_modes_and_in_the_average(
    kind: str, method: str
) -> None:
    settings = quick_settings(method=method, training=replace(PLAIN, ema=0.5))
    trainer, architecture = trained(kind, settings)
    assert trainer.average is not None
    networks, x = [trainer.network, trainer.average], stream().sample(64, 64)[0][0]

    def outputs() -> list[torch.Tensor]:
        return [
            copy.deepcopy(n).train(mode)(x).detach() for n in networks for mode in (True, False)
        ]

    before = outputs()
    for site in sites_of(architecture):
        done = extend(trainer.network, site, 3, trainer, settings, generator=generator())
        assert done.proposal.keeps_function
        assert done.added > 0
        assert done.amplitude is not None and not done.amplitude.rejected
        loss = done.amplitude.loss_before
        assert done.amplitude.loss_after == pytest.approx(loss, rel=1e-5)

    for now, then in zip(outputs(), before, strict=True):
        torch.testing.assert_close(now, then, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["net2wider", "random_pairs", "random_variance"])
def test_widths_are_kept_to_multiples_without_parting_copies_and_pairs(method: str) -> None:
    settings = quick_settings(method=method, where=WhereSettings(width_multiple=2))
    trainer, architecture = trained("resnet", settings)  # of width 2
    x = stream().sample(64, 64)[0][0]
    before = copy.deepcopy(trainer.network).eval()(x)
    site = sites_of(architecture)[0]
    done = extend(trainer.network, site, 3, trainer, settings, generator=generator())
    assert done.added == 2
    if done.proposal.keeps_function:
        torch.testing.assert_close(trainer.network.eval()(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(KEEPS)))
def test_other_methods_do_not_claim_to_keep_it(method: str) -> None:
    settings = quick_settings(method=method)
    trainer, architecture = trained("resnet", settings)
    site = sites_of(architecture)[0]
    done = extend(trainer.network, site, 3, trainer, settings, generator=generator())
    assert not done.proposal.keeps_function
    assert done.amplitude is not None
    if not done.amplitude.rejected:
        assert done.amplitude.loss_after != pytest.approx(done.amplitude.loss_before, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_proposal_leaves_no_trace_and_draws_from_its_own_generator(method: str) -> None:
    settings = quick_settings(method=method)
    trainer, architecture = trained("resnet", settings)
    network, site = trainer.network.eval(), sites_of(architecture)[1]
    network.zero_grad(set_to_none=True)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    batch, chance = stream().sample(64, 64)[0], torch.get_rng_state()

    one, two, other = (
        METHODS[method](request(network, site, batch, settings, seed=seed)).neurons
        for seed in (0, 0, 1)
    )

    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert not any(m.training for m in network.modules())
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), chance)
    assert torch.equal(one.alpha, two.alpha) and torch.equal(one.omega, two.omega)
    assert torch.equal(one.alpha, other.alpha) == (method in CLOSED_FORM)
    assert not one.alpha.requires_grad and not one.omega.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_the_log_copes_with_what_a_method_does_not_measure(method: str) -> None:
    network, start = perceptron((1, 2))
    final = replace(start, middle_widths=(3, 4))
    settings = quick_settings(method=method, extensions=2)

    result = grow(network, start, final, stream(), patterns(30, seed=2), settings)

    for row in result.rows[1:]:
        assert (row.largest_singular_value is not None) == (method in CLOSED_FORM)
        assert (row.bottleneck_before is not None) == (method in ("tiny", "whitened"))
        assert (row.bottleneck_after is not None) == (method in ("tiny", "whitened"))
        assert (row.bottleneck_predicted is not None) == (method == "tiny")
        assert row.loss_before is not None and row.loss_after is not None
    assert len(rows_to_csv(result.rows).splitlines()) == 1 + len(result.rows)
    assert [len(c.singular_values) > 0 for c in result.curves] == [method in CLOSED_FORM] * 4


def test_the_amplitude_of_another_method_is_no_hindrance() -> None:
    # A user changes `method` alone: what has an amplitude of its own ignores the search.
    searched = quick_settings(
        methods=MethodsSettings(net2wider=Net2WiderSettings(noise=0.0)), method="tiny"
    )
    for method in KEEPS:
        settings = replace(searched, method=method)
        trainer, architecture = trained("mlp", settings)
        site = sites_of(architecture)[0]
        done = extend(trainer.network, site, 2, trainer, settings, generator=generator())
        assert done.amplitude is not None
        assert done.amplitude.factor == (1e-3 if method == "gradmax" else 1.0)
        assert done.amplitude.amplitudes == (0.0, done.amplitude.factor)


def test_a_loss_that_overflows_is_said() -> None:
    settings = quick_settings(method="random_variance")
    trainer, architecture = trained("mlp", settings)
    with torch.no_grad():
        nn.init.constant_(trainer.network.head.weight, 1e38)
    with pytest.raises(Exception, match=r"^the loss is (nan|inf) with new neurons; choose another"):
        extend(
            trainer.network,
            sites_of(architecture)[0],
            2,
            trainer,
            settings,
            generator=generator(),
        )
