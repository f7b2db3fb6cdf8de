"""The estimate of growth: nothing changes by it, and it adds up."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from tests.growth.scenes import perceptron, quick_settings, resnet, stream
from tests.growth.test_calibration import SPEEDS
from tinygrow.growth import calibration
from tinygrow.growth.cost import PlanCost, plan_cost
from tinygrow.growth.estimate import GrowthEstimate, estimate_growth, predict
from tinygrow.networks.cost import count_parameters
from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings
from tinygrow.settings.plan import UntilSettings


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time one training step a width."""
    monkeypatch.setattr(calibration, "LOOKS", (0.0, 0.0))


def estimated(settings: GrowthSettings, kind: str = "resnet", **done: int) -> GrowthEstimate:
    start = (resnet() if kind == "resnet" else perceptron((1, 2)))[1]
    final = replace(start, middle_widths=(4, 8))
    return estimate_growth(start, final, stream(), settings, validation_images=30, **done)


@pytest.mark.parametrize("method", ["tiny", "none"])
def test_streams_and_global_generators_are_left_as_they_were(method: str) -> None:
    start = resnet()[1]
    final = replace(start, middle_widths=(4, 8))
    used, untouched = stream(seed=4), stream(seed=4)
    used.next(7)
    untouched.next(7)
    images, generator = used.images.images_NHWC.clone(), torch.get_rng_state()
    settings = quick_settings(method=method)
    before = copy.deepcopy(settings)
    estimate_growth(start, final, used, settings, validation_images=30)
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(used.images.images_NHWC, images)
    for one, other in (
        (used.next(100), untouched.next(100)),
        (used.sample(5, 5)[0], untouched.sample(5, 5)[0]),
    ):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert settings == before


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
@pytest.mark.parametrize("method", ["tiny", "random", "none"])
def test_the_whole_of_a_growth(kind: str, method: str) -> None:
    estimate = estimated(quick_settings(method=method), kind)
    assert estimate.device == "cpu"
    assert estimate.images == 6 * 48
    assert estimate.extensions == (0 if method == "none" else 6)
    assert (estimate.statistics_images > 0) == (method == "tiny")
    parts = [
        estimate.seconds_training,
        estimate.seconds_evaluation,
        estimate.seconds_statistics,
        estimate.seconds_solve,
        estimate.seconds_search,
        estimate.seconds_surgery,
    ]
    assert min(parts) >= 0
    assert estimate.seconds == pytest.approx(sum(parts))
    assert (estimate.seconds_extensions > 0) == (method != "none")
    low, high = (resnet(middle=w)[0] for w in ((1, 2), (4, 8)))
    if kind == "resnet":
        assert estimate.parameters[0] == count_parameters(low)
        grown = low if method == "none" else high
        assert estimate.parameters[1] == count_parameters(grown)


def test_what_is_left_of_a_growth_is_less() -> None:
    whole, rest = estimated(quick_settings()), estimated(quick_settings(), done_visits=4)
    over = estimated(quick_settings(), done_visits=6, done_images=6 * 48 - 10)
    assert rest.images == 2 * 48
    assert rest.extensions == 2
    assert rest.multiply_adds < whole.multiply_adds
    assert whole.parameters[0] < rest.parameters[0] < rest.parameters[1] == whole.parameters[1]
    assert over.images == 10
    assert over.extensions == 0
    assert over.seconds_extensions == 0


def plan_of() -> PlanCost:
    start = resnet()[1]
    settings = quick_settings(
        amplitude=AmplitudeSettings(images=64, smallest_exponent=-3),
    )
    return plan_cost(start, replace(start, middle_widths=(4, 8)), settings, 96)


def test_seconds_follow_the_speeds() -> None:
    plan = plan_of()
    estimate = predict(plan, SPEEDS, validation_images=30, device="cpu")
    twice = replace(
        SPEEDS,
        training=tuple((cost, 2 * seconds) for cost, seconds in SPEEDS.training),
    )
    slower = predict(plan, twice, validation_images=30, device="cpu")
    assert slower.seconds_training == pytest.approx(2 * estimate.seconds_training)
    assert slower.seconds_extensions == estimate.seconds_extensions
    looks = [plan.forwards[0], *(visit.forward for visit in plan.visits)]
    assert estimate.seconds_evaluation == pytest.approx(30 * sum(looks) * SPEEDS.forward)
    by_hand = sum(48 * SPEEDS.training_seconds(visit.forward) for visit in plan.visits)
    assert estimate.seconds_training == pytest.approx(by_hand)
    ends = [1 / SPEEDS.training_seconds(forward) for forward in plan.forwards]
    assert estimate.images_per_second == pytest.approx(ends)


def test_multiply_adds_count_training_three_times() -> None:
    plan = plan_of()
    estimate = predict(plan, SPEEDS, validation_images=30, device="cpu")
    assert estimate.multiply_adds_training == 3 * sum(48 * v.forward for v in plan.visits)
    assert estimate.multiply_adds_evaluation == 30 * plan.evaluation
    extensions = [v.extension for v in plan.visits if v.extension is not None]
    assert estimate.multiply_adds_statistics == sum(e.statistics + e.solve for e in extensions)
    assert estimate.multiply_adds == pytest.approx(
        estimate.multiply_adds_training
        + estimate.multiply_adds_evaluation
        + estimate.multiply_adds_statistics
        + estimate.multiply_adds_search
    )
    assert estimate.multiply_adds_search > sum(e.search for e in extensions)


FIXED = GrowthEstimate(
    device="cpu",
    parameters=(3_368_516, 12_773_156),
    extensions=128,
    images=1_600_000,
    images_per_second=(31.4, 12.2),
    statistics_images=7_000_000,
    seconds_training=3600.0 * 30,
    seconds_evaluation=3600.0,
    seconds_statistics=3600.0 * 10,
    seconds_solve=3600.0,
    seconds_search=3600.0 * 2,
    seconds_surgery=3600.0,
    multiply_adds_training=2e15,
    multiply_adds_evaluation=1e14,
    multiply_adds_statistics=5e14,
    multiply_adds_search=1e14,
    speeds=replace(SPEEDS, seconds=21.0),
)


def test_the_estimate_in_words() -> None:
    assert FIXED.lines() == [
        "growth from 3,368,516 to 12,773,156 parameters in 128 extensions on cpu: 1,600,000 image"
        " passes of training at 31 to 12 images/s (30.0 h), extensions 14.0 h, moments of 7,000,000"
        " images among it, evaluation 60 min: about 45.0 h, 2.7e15 multiply-adds (measured in 21 s)"
    ]


def test_an_estimate_of_an_open_plan_says_that_it_is_the_most() -> None:
    (line,) = replace(FIXED, at_most=True).lines()
    assert "evaluation 60 min: at most about 45.0 h, 2.7e15 multiply-adds" in line
    start = resnet()[1]
    settings = quick_settings(until=UntilSettings(parameters=1000))
    plan = plan_cost(start, replace(start, middle_widths=(4, 8)), settings, 96)
    assert predict(plan, SPEEDS, validation_images=30, device="cpu").at_most


def test_a_control_in_words() -> None:
    control = replace(
        FIXED,
        parameters=(3_368_516, 3_368_516),
        extensions=0,
        statistics_images=0,
        images_per_second=(31.4, 31.4),
        seconds_statistics=0.0,
        seconds_solve=0.0,
        seconds_search=0.0,
        seconds_surgery=0.0,
    )
    assert control.lines() == [
        "training 3,368,516 parameters on cpu: 1,600,000 image passes of training at 31 images/s"
        " (30.0 h), evaluation 60 min: about 31.0 h, 2.7e15 multiply-adds (measured in 21 s)"
    ]
    assert math.isclose(control.seconds, 31 * 3600)
