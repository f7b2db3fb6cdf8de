"""Measuring touches nothing, fits its budget and knows how to scale."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.growth.scenes import perceptron, quick_settings, resnet, stream
from tinygrow.architecture import Architecture
from tinygrow.growth import calibration as module
from tinygrow.growth.calibration import Rates, Speeds, measure, with_training_of
from tinygrow.growth.cost import ExtensionCost, plan_cost
from tinygrow.growth.extend import Extension, extend
from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings
from tinygrow.training.batches import TrainingStream

STAGES = (4, 8, 16)
FINAL = (4, 8, 16)
START = (1, 2, 4)


def architecture_of(kind: str, widths: tuple[int, ...] = START) -> Architecture:
    if kind == "mlp":
        return perceptron(widths)[1]
    return resnet(STAGES, widths)[1]


def measured(
    settings: GrowthSettings, kind: str = "resnet", start: tuple[int, ...] = START, done: int = 0
) -> Speeds:
    first = architecture_of(kind, start)
    final = replace(first, middle_widths=FINAL)
    plan = plan_cost(first, final, settings, 96, done_visits=done)
    return measure(first, final, plan, stream(), settings, seed=0)


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, Extension]]:
    """Collect site, images of the moments and outcome of each extension that is measured."""
    found: list[tuple[str, int, Extension]] = []

    def watch(*arguments: Any, **named: Any) -> Extension:
        done = extend(*arguments, **named)
        found.append((done.site.name, done.proposal.images, done))
        return done

    monkeypatch.setattr(module, "extend", watch)
    return found


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time one training step a width, and every extension whatever it takes."""
    monkeypatch.setattr(module, "LOOKS", (0.0, 0.0))
    monkeypatch.setattr(module, "BUDGETS", (1e9, 1e9))


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
@pytest.mark.parametrize("method", ["tiny", "gradmax", "random"])
def test_every_size_of_site_is_measured(
    kind: str, method: str, extended: list[tuple[str, int, Extension]]
) -> None:
    amplitude = AmplitudeSettings(images=64)
    speeds = measured(quick_settings(method=method, amplitude=amplitude), kind)
    assert len(speeds.extensions) == 3
    assert len({rates.size for rates in speeds.extensions}) == 3
    assert len(extended) == 1 + 3  # the first one twice, to warm up
    assert [cost for cost, _ in speeds.training] == sorted(cost for cost, _ in speeds.training)
    assert len(speeds.training) == 3
    assert speeds.training[0][0] < speeds.reference < speeds.training[-1][0]
    assert min(seconds for _, seconds in speeds.training) > 0
    assert speeds.forward > 0
    assert speeds.seconds > 0
    solve = [rates.solve for rates in speeds.extensions]
    assert solve == sorted(solve, reverse=True)
    for rates in speeds.extensions:
        assert (rates.statistics > 0) == (rates.solve > 0) == (method != "random")
        # Surgery is what is left of its time without the solve: 0 where a busy machine was slow.
        assert rates.surgery >= 0
    assert max(rates.surgery for rates in speeds.extensions) > 0


def test_a_measured_extension_takes_one_mini_batch_and_few_amplitudes(
    extended: list[tuple[str, int, Extension]],
) -> None:
    measured(quick_settings(method="tiny"))
    for _, images, done in extended[1:]:
        assert images == 2 * 32  # the mini-batch of the settings, for each of the two moments
        assert done.amplitude is not None
        assert done.amplitude.amplitudes == (0.0, 0.5)


@pytest.mark.parametrize("method", ["none", "tiny"])
def test_no_extension_is_measured_where_none_will_be_made(
    method: str, extended: list[tuple[str, int, Extension]]
) -> None:
    start = START if method == "none" else FINAL
    speeds = measured(quick_settings(method=method), start=start)
    assert not speeds.extensions
    assert not extended
    assert len(speeds.training) == 1


def test_what_is_done_is_not_measured(extended: list[tuple[str, int, Extension]]) -> None:
    assert len(measured(quick_settings(), done=8).extensions) == 1
    assert {site for site, _, _ in extended} == {"stages.2.block0.conv1"}
    assert len(measured(quick_settings(), done=9).training) == 1


def test_two_sites_are_measured_whatever_the_budget(
    monkeypatch: pytest.MonkeyPatch, extended: list[tuple[str, int, Extension]]
) -> None:
    monkeypatch.setattr(module, "BUDGETS", (0.0, 0.0))
    speeds = measured(quick_settings())
    assert len(speeds.extensions) == 2
    first, second = "stages.0.block0.conv1", "stages.1.block0.conv1"
    assert [site for site, _, _ in extended] == [first, first, second]
    assert extended[-1][1] == 2 * module.SMALLEST_BATCH  # fewer images where time is short


def test_methods_that_find_no_neurons_are_scaled_by_forward_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def finds_none(*arguments: Any, **named: Any) -> Extension:
        return replace(extend(*arguments, **named), amplitude=None, added=0)

    monkeypatch.setattr(module, "extend", finds_none)
    speeds = measured(quick_settings())
    assert {rates.first_looks for rates in speeds.extensions} == {speeds.forward}
    assert {rates.surgery for rates in speeds.extensions} == {speeds.forward}
    assert min(rates.statistics for rates in speeds.extensions) > 0


@pytest.mark.parametrize("growth", ["sqrt_parameters", "constant"])
def test_training_is_measured_with_the_batch_of_its_width(
    monkeypatch: pytest.MonkeyPatch, growth: str
) -> None:
    asked: list[int] = []

    def watch(network: Any, own: TrainingStream, recipe: Any, seconds: float) -> float:
        asked.append(recipe.batch_size)
        return 100.0

    monkeypatch.setattr(module, "images_per_second", watch)
    measured(quick_settings(batch_growth=growth))
    assert asked[0] == asked[1] == 16
    ratio = math.sqrt(module.parameters_of(architecture_of("resnet", FINAL)))
    ratio /= math.sqrt(module.parameters_of(architecture_of("resnet", START)))
    assert asked[-1] == (round(16 * ratio) if growth == "sqrt_parameters" else 16)
    assert asked[2] <= asked[3]


# --- arithmetic

SLOW = Rates(size=1000, statistics=1.0, solve=2.0, first_looks=3.0, surgery=4.0)
FAST = Rates(size=10, statistics=10.0, solve=20.0, first_looks=30.0, surgery=40.0)
SPEEDS = Speeds(
    training=((100.0, 1.0), (200.0, 3.0), (300.0, 4.0)),
    reference=200.0,
    forward=0.5,
    extensions=(FAST, SLOW),
    seconds=0.0,
)
COST = ExtensionCost(
    statistics_images=1,
    statistics=2.0,
    solve=3.0,
    first_looks=5.0,
    search=7.0,
    search_loss=1.0,
    surgery=11.0,
    surgery_solve=13.0,
)


@pytest.mark.parametrize(
    ("forward", "seconds"),
    [(50, 0.5), (100, 1.0), (150, 2.0), (200, 3.0), (275, 3.75), (300, 4.0), (600, 8.0)],
)
def test_training_between_and_beyond_what_was_measured(forward: float, seconds: float) -> None:
    assert SPEEDS.training_seconds(forward) == seconds


@pytest.mark.parametrize(("size", "nearest"), [(1, FAST), (99, FAST), (101, SLOW), (10**9, SLOW)])
def test_sites_that_were_not_measured_take_the_nearest(size: int, nearest: Rates) -> None:
    assert SPEEDS.rates(size) is nearest


def test_seconds_of_an_extension() -> None:
    assert SPEEDS.extension_seconds(COST, 2000) == (
        2.0 * 1.0,
        3.0 * 2.0,
        5.0 * 3.0 + 7.0 * 0.5,
        11.0 * 4.0 + 13.0 * 2.0,
    )


def test_narrow_networks_lose_on_everything_but_linear_algebra() -> None:
    narrowed = SPEEDS.narrowed(100.0)  # 1 / 100 against 3 / 200 a multiply-add
    assert math.isclose(narrowed.forward, 0.5 * 2 / 3)
    assert narrowed.extensions[1].solve == SLOW.solve
    assert math.isclose(narrowed.extensions[1].statistics, 1.0 * 2 / 3)
    assert math.isclose(narrowed.extensions[1].first_looks, 3.0 * 2 / 3)
    assert math.isclose(narrowed.extensions[1].surgery, 4.0 * 2 / 3)
    assert narrowed.training == SPEEDS.training
    assert SPEEDS.narrowed(200.0) == SPEEDS


def test_one_more_network_joins_in_order_of_its_cost() -> None:
    architecture = architecture_of("resnet")
    used, untouched, generator = stream(), stream(), torch.get_rng_state()
    wider = with_training_of(SPEEDS, architecture, used, quick_settings())
    costs = [cost for cost, _ in wider.training]
    assert costs == sorted(costs)
    assert len(costs) == 4
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(used.next(20)[0], untouched.next(20)[0])
