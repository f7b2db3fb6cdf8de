"""Evidence from real networks, against what one sees by hand."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.growth.scenes import mean_loss, perceptron, quick_settings, resnet, stream
from tinygrow.architecture import Architecture
from tinygrow.growth.amplitude import choose_amplitude
from tinygrow.growth.neurons import tiny
from tinygrow.growth.neurons.proposal import Request
from tinygrow.growth.plan import measured as module
from tinygrow.growth.plan.measured import Measured, cut, leading_neurons, searching
from tinygrow.growth.plan.price import milliseconds, price_of, price_of_neuron, with_blank_units
from tinygrow.growth.schedule import Visit
from tinygrow.growth.sites import sites_of
from tinygrow.growth.surgery import as_units, widen
from tinygrow.networks.build import build_network
from tinygrow.settings.growth import AmplitudeSettings
from tinygrow.settings.plan import UntilSettings, WhereSettings
from tinygrow.training.batches import TrainingStream

SHAPE = (3, 8, 8)


def scene(
    kind: str, images: TrainingStream | None = None, **changes: Any
) -> tuple[nn.Module, Architecture, Measured]:
    network, architecture = resnet() if kind == "resnet" else perceptron((4, 4))
    changes = {"where": WhereSettings(images=40)} | changes
    evidence = Measured(
        network,
        sites_of(architecture),
        architecture.middle_widths,
        images or stream(),
        SHAPE,
        quick_settings(**changes),
    )
    return network, architecture, evidence


def visit(index: int, target: int) -> Visit:
    return Visit(sweep=1, index=index, target=target, ends_sweep=False)


# --- prices


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_neuron_costs_what_the_wider_network_shows(kind: str, index: int) -> None:
    network, architecture, evidence = scene(kind)
    site = sites_of(architecture)[index]
    before, each = price_of(network, SHAPE), price_of_neuron(network, site, SHAPE)
    widths = list(architecture.middle_widths)
    widths[index] += 3
    wide = build_network(replace(architecture, middle_widths=tuple(widths)))
    after = price_of(wide, SHAPE)
    assert after.parameters == before.parameters + 3 * each.parameters
    assert after.multiply_adds == before.multiply_adds + 3 * each.multiply_adds
    three = visit(index, widths[index])
    assert evidence.cost(three) == 3 * each.parameters
    scores = {"where": WhereSettings(score="per_multiply_add")}
    assert scene(kind, **scores)[2].cost(three) == 3 * each.multiply_adds


def test_budgets_count_the_neurons_that_fit() -> None:
    network, architecture, _ = scene("resnet")
    before = price_of(network, SHAPE)
    each = price_of_neuron(network, sites_of(architecture)[1], SHAPE)

    def fitting(**limits: int) -> int:
        return scene("resnet", until=UntilSettings(**limits))[2].fitting(visit(1, 8))

    assert fitting(parameters=before.parameters + 4 * each.parameters) == 4
    assert fitting(parameters=before.parameters + 4 * each.parameters - 1) == 3
    assert fitting(multiply_adds=before.multiply_adds + 5 * each.multiply_adds) == 5
    assert fitting(parameters=before.parameters - 1) == 0
    assert fitting() == 6


def milliseconds_by_width(networks: list[nn.Module], *_: Any) -> list[float]:
    """Return a time of 1 ms a channel of the second site."""
    return [float(n.get_submodule("stages.1.block0.conv1").weight.shape[0]) for n in networks]


def test_latency_is_measured_on_the_wider_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "milliseconds", milliseconds_by_width)
    where = WhereSettings(score="per_latency")
    evidence = scene("resnet", where=where, until=UntilSettings(latency_ms=5.5))[2]
    assert evidence.fitting(visit(1, 8)) == 3
    assert evidence.fitting(visit(1, 4)) == 2
    assert evidence.cost(visit(1, 4)) == 2.0
    assert evidence.cost(visit(0, 4)) == 0.01 * 2.0  # no time of its own counts as a little
    assert scene("resnet", until=UntilSettings(latency_ms=1.5))[2].fitting(visit(1, 8)) == 0


def test_times_are_of_copies_in_evaluation_mode() -> None:
    network = resnet()[0].train()
    before = copy.deepcopy(network.state_dict())
    modes = []
    network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    small, large = milliseconds([network, with_blank_units(network, SITE, 2)], SHAPE, 4)
    assert small > 0
    assert large > 0
    assert network.training
    assert not any(modes)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


SITE = sites_of(resnet()[1])[1]


# --- samples


@pytest.mark.parametrize(
    ("images", "parts"),
    [
        (96, (40, 20, 30)),
        (96, (500, 32, 32)),  # the others come first
        (96, (10, 10, 10)),
        (9, (200, 3, 3)),
        (6, (2, 2, 2)),
    ],
)
def test_the_three_parts_have_no_image_in_common(images: int, parts: tuple[int, int, int]) -> None:
    source = stream(images)
    # Every image is of one value, its number; augmentation cannot change it.
    source.images.images_NHWC = torch.arange(images, dtype=torch.uint8)[:, None, None, None].repeat(
        1, 8, 8, 3
    )
    pieces = cut(source, *parts, batch_size=10)
    seen = [
        [round(float(image[0, 0, 0]), 4) for x, _ in piece for image in x]
        for piece in (pieces.fit, pieces.search, pieces.held_out)
    ]
    together = [number for part in seen for number in part]
    assert len(together) == len(set(together)) == min(images, sum(parts))
    assert min(map(len, seen)) >= 2
    assert all(len(y) <= 10 for piece in (pieces.fit, pieces.search) for _, y in piece)
    for part, wanted in zip(seen[1:], parts[1:], strict=True):
        assert abs(len(part) - wanted) <= 10
    assert len(pieces.fit[:]) == len(list(pieces.fit)) == len(pieces.fit)


# --- neurons and what they promise


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
@pytest.mark.parametrize("projection", [True, False])
def test_one_sample_for_all_sites_gives_tinys_neurons(kind: str, projection: bool) -> None:
    network, architecture, _ = scene(kind)
    batches = list(stream().sample(64, 32))
    settings = quick_settings()
    settings = replace(
        settings,
        statistics=replace(settings.statistics, same_sample=True),
        solver=replace(settings.solver, projection=projection),
    )
    sites = sites_of(architecture)
    found = leading_neurons(network, sites, [1, 2], batches, settings)
    for site, count, neurons in zip(sites, (1, 2), found, strict=True):
        alone = tiny.propose(
            Request(
                network=network,
                site=site,
                count=count,
                sample=lambda _: batches,
                available=96,
                settings=settings,
                generator=torch.Generator(),
            )
        ).neurons
        product, expected = (n.alpha.T @ n.omega for n in (neurons, alone))
        assert len(neurons.alpha) == count
        assert torch.allclose(product, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
def test_a_gain_is_the_loss_that_neurons_take_off_held_out_images(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    original = cut
    monkeypatch.setattr(
        module, "cut", lambda *arguments: drawn.append(original(*arguments)) or drawn[-1]
    )
    network, architecture, evidence = scene(kind)
    widths = architecture.middle_widths
    found = evidence.study([visit(0, widths[0] + 1), visit(1, widths[1] + 2)])
    (pieces,) = drawn
    settings, counts = quick_settings(), [1, 2]
    for site in sites_of(architecture):
        neurons = leading_neurons(network, sites_of(architecture), counts, pieces.fit, settings)[
            site.index
        ]
        assert found[site.index].predicted == pytest.approx(
            float(neurons.singular_values.square().sum()), rel=1e-6
        )
        units = as_units(neurons, *site.layers(network))
        chosen = choose_amplitude(network, site, units, pieces.search, settings.amplitude)
        assert chosen.units is not None
        assert not chosen.rejected
        wide = copy.deepcopy(network)
        widen(wide, site, chosen.units)
        expected = mean_loss(network, pieces.held_out) - mean_loss(wide, pieces.held_out)
        assert found[site.index].gain() == pytest.approx(expected, abs=2e-6)
    assert evidence.images == 2 * sum(len(y) for _, y in pieces.fit)
    assert evidence.study([visit(1, widths[1] + 2)]) is found  # not drawn again
    assert len(drawn) == 1


def test_no_neurons_promise_nothing() -> None:
    network, _, evidence = scene("mlp")
    with torch.no_grad():
        network.head.weight.zero_()  # no gradient comes through
    (finding, *_) = evidence.study([visit(0, 5)]).values()
    assert (finding.predicted, finding.significance(), finding.gain()) == (0.0, 0.0, 0.0)


def test_evidence_changes_nothing_but_the_place_in_the_stream() -> None:
    images = stream()
    network, _, evidence = scene("resnet", images)
    before = copy.deepcopy(network.state_dict())
    torch_state = torch.get_rng_state()
    for finding in evidence.study([visit(0, 2), visit(1, 4)]).values():
        finding.significance()
        finding.gain()
    evidence.cost(visit(0, 2))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert network.training
    assert torch.equal(torch.get_rng_state(), torch_state)
    # The shuffled order that training follows has not begun.
    assert len(images.state()["order"]) == 0


def test_methods_of_a_fixed_amplitude_are_searched_for_the_comparison() -> None:
    fixed = AmplitudeSettings(normalization="parametric", sign="none", search="fixed", images=77)
    found = searching(fixed)
    assert (found.normalization, found.sign, found.search, found.images) == (
        "functional",
        "group",
        "first_increase",
        77,
    )
    grid = AmplitudeSettings(search="grid", normalization="none")
    assert searching(grid) is grid
