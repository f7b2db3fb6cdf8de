"""Further passes: the direction leads down, and only what gains on the search's images is kept."""

import pytest
import torch

from tests.growth.scenes import (
    PairNet,
    conv_pair,
    linear_pair,
    mean_loss,
    random_units,
    resnet,
    site_of,
    stream,
    widened,
)
from tinygrow.growth import passes as module
from tinygrow.growth.amplitude import Trial, normalize
from tinygrow.growth.passes import direction, refine_further
from tinygrow.growth.sites import sites_of
from tinygrow.growth.surgery import NewUnits
from tinygrow.settings.growth import RefinementSettings
from tinygrow.training.batches import Batch

Change = tuple[torch.Tensor, torch.Tensor | float, torch.Tensor]
SETTINGS = RefinementSettings(passes=2)


def scene(kind: str) -> tuple[PairNet, Batch, NewUnits]:
    if kind == "linear":
        network, batch = linear_pair(activation=torch.relu)
    else:
        network, batch = conv_pair(images=20, activation=torch.relu, normed=kind == "normed")
    units = normalize(network, site_of(network), random_units(network, site_of(network), 3), batch)
    return network, batch, units.scaled(1.0, 0.3)


def moved(units: NewUnits, steps: tuple[float, float], change: Change) -> NewUnits:
    into, out = steps
    return NewUnits(
        units.fan_in + into * change[0],
        units.bias + into * change[1],
        units.fan_out + out * change[2],
    )


@pytest.mark.parametrize("steps", [(1e-5, 0.0), (0.0, 1e-5)], ids=["fan-in", "fan-out"])
@pytest.mark.parametrize("kind", ["linear", "conv", "normed"])
def test_each_part_of_the_direction_lowers_the_loss(kind: str, steps: tuple[float, float]) -> None:
    network, batch, units = scene(kind)
    change = direction(network, site_of(network), units, [batch], SETTINGS)
    before, after, twice = (
        mean_loss(widened(network, moved(units, (k * steps[0], k * steps[1]), change)), [batch])
        for k in (0, 1, 2)
    )
    assert after < before
    # Far from rounding: twice the step, twice the fall.
    assert before - twice == pytest.approx(2 * (before - after), rel=1e-2)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_the_direction_is_as_large_as_what_it_changes(kind: str) -> None:
    network, batch, units = scene(kind)
    into, bias, out = direction(network, site_of(network), units, [batch], SETTINGS)
    torch.testing.assert_close(out.norm(), units.fan_out.norm())
    sizes = []
    for fan_in, shift in ((units.fan_in, units.bias), (into, bias)):
        one = widened(network, NewUnits(fan_in, shift, units.fan_out))
        with torch.no_grad():
            z = one.first(batch[0])[:, -3:].transpose(0, 1).flatten(1)
        sizes.append(float((z - z.mean(1, keepdim=True)).norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=1e-6)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_activations_in_place_change_nothing(kind: str) -> None:
    network, batch, units = scene(kind)
    right = direction(network, site_of(network), units, [batch], SETTINGS)
    network.activation = torch.relu_
    network.tail = lambda a: network.head(a.tanh_().flatten(1))
    found = direction(network, site_of(network), units, [batch], SETTINGS)
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other)


def test_passes_lower_the_loss_of_the_search_and_report_it() -> None:
    network, architecture = resnet(middle=(2, 2))
    site = sites_of(architecture)[1]
    images = stream()
    estimate, search = images.sample(96, 32), list(images.sample(64, 32))
    units = normalize(network, site, random_units(network, site, 3), search[0]).scaled(1.0, 0.2)
    start = Trial(network, site, units).loss(search, 0.0)

    passed = refine_further(network, site, units, estimate, search, SETTINGS)

    assert passed.loss is not None and passed.loss < start
    assert Trial(network, site, passed.units).loss(search, 0.0) == pytest.approx(
        passed.loss, rel=1e-6
    )


def test_a_pass_that_does_not_gain_leaves_the_units(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch, units = scene("normed")

    def upwards(*arguments: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return tuple(-part for part in direction(*arguments))  # type: ignore[arg-type,return-value]

    monkeypatch.setattr(module, "direction", upwards)
    passed = refine_further(network, site_of(network), units, [batch], [batch], SETTINGS)
    assert passed.units is units and passed.loss is None


def test_steps_whose_loss_is_not_a_number_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch, units = scene("linear")

    def broken(*arguments: object) -> Change:
        into, bias, out = direction(*arguments)  # type: ignore[arg-type]
        return into, bias, out * torch.nan

    monkeypatch.setattr(module, "direction", broken)
    passed = refine_further(network, site_of(network), units, [batch], [batch], SETTINGS)
    assert passed.units is units and passed.loss is None
