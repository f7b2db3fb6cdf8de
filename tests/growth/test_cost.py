"""What growth is said to cost, against what networks and real extensions show."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.growth.scenes import patterns, perceptron, quick_settings, resnet, stream
from tinygrow.architecture import Architecture
from tinygrow.growth.cost import (
    MOMENTS,
    SETTLED,
    USUAL_END,
    CostModel,
    PlanCost,
    amplitudes,
    parameters_of,
    plan_cost,
)
from tinygrow.growth.extend import extend
from tinygrow.growth.grow import grow
from tinygrow.growth.neurons.method import METHODS
from tinygrow.growth.sites import Site, sites_of
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.settings.growth import (
    AmplitudeSettings,
    GrowthSettings,
    RefinementSettings,
    StatisticsSettings,
)
from tinygrow.settings.plan import UntilSettings, WhenSettings, WhereSettings
from tinygrow.training.loop import Trainer


def wide(model: CostModel, site: Site, count: int) -> int:
    """Return the multiply-adds of a forward pass of (4, 6) with a site made wider."""
    return model.forward([width + count * (i == site.index) for i, width in enumerate((4, 6))])


def architecture_of(kind: str, widths: tuple[int, ...]) -> Architecture:
    return (resnet(middle=widths) if kind == "resnet" else perceptron(widths))[1]


def test_every_method_is_known() -> None:
    assert set(MOMENTS) == {*METHODS, "none"}, "say in cost.py what the new method measures"


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
@pytest.mark.parametrize("widths", [(1, 2), (4, 8), (3, 5)])
def test_forward_passes_cost_what_the_network_counts(kind: str, widths: tuple[int, int]) -> None:
    architecture = architecture_of(kind, widths)
    model = CostModel(architecture_of(kind, (7, 1)), quick_settings(), 96)
    assert model.forward(widths) == count_multiply_adds(build_network(architecture), (3, 8, 8))


def test_parameters_are_counted_without_drawing_numbers() -> None:
    network, architecture = resnet(middle=(3, 5))
    before = torch.get_rng_state()
    assert parameters_of(architecture) == count_parameters(network)
    CostModel(architecture, quick_settings(), 96)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("most", [0, 40])
def test_images_of_the_moments_are_those_of_real_extensions(
    kind: str, method: str, same: bool, most: int
) -> None:
    statistics = StatisticsSettings(
        conv_factor=0.4,
        linear_factor=0.05,
        min_images=10,
        max_images=most,
        batch_size=10,
        same_sample=same,
    )
    settings = quick_settings(method=method, statistics=statistics)
    architecture = architecture_of(kind, (4, 6))
    model = CostModel(architecture, settings, 96)
    for site in sites_of(architecture):
        network = build_network(architecture, 0)
        trainer = Trainer(network, stream(), settings.training, total_epochs=1.0)
        done = extend(network, site, 2, trainer, settings, generator=torch.Generator())
        cost = model.extension(site.index, architecture.middle_widths, 2)
        assert cost.statistics_images == done.proposal.images
        measured = set(MOMENTS[method])
        assert bool(cost.statistics) == bool(measured)
        assert bool(cost.solve) == ("neurons" in measured)
        assert (cost.first_looks == 0) == (method in SETTLED) == bool(done.proposal.settled)
        assert done.amplitude is not None
        if method in SETTLED:
            assert cost.search == 64 * len(done.amplitude.losses) * wide(model, site, 2)
            assert cost.search == len(done.amplitude.losses) * cost.search_loss


def test_an_extension_of_a_residual_network_by_hand() -> None:
    # Stages of 4 and 8 channels on 8x8 and 4x4 maps, middle widths 3 and 5; 2 more in the first.
    settings = quick_settings(
        statistics=StatisticsSettings(min_images=20, max_images=20, batch_size=10),
        amplitude=AmplitudeSettings(images=30, smallest_exponent=-3, search="grid"),
    )
    cost = CostModel(architecture_of("resnet", (3, 5)), settings, 96).extension(0, (3, 5), 2)
    behind = 4 * 8 * 64 + 2 * 9 * 8 * 5 * 16 + 8 * 3  # transition, second block, head
    narrow, wide = (27 * 4 * 64 + 2 * 9 * 4 * m * 64 + behind for m in (3, 5))
    update, neurons = 64 * 28 * (28 + 4), 64 * 37 * (37 + 36) + 9 * 3 * 4 * 64
    assert cost.statistics_images == 40
    assert cost.statistics == 40 * (narrow + behind) + 20 * (update + neurons)
    stem = 27 * 4 * 64  # run once for all amplitudes: 0, 1/8, 1/4, 1/2
    assert cost.search == 30 * (stem + 4 * (wide - stem))
    assert cost.search_loss == 30 * (wide - stem)
    assert cost.first_looks == 10 * 4 * wide  # two of normalisation, two of the sign
    again = wide + behind + 64 * 46 * (46 + 4)
    assert cost.surgery == 30 * wide + 20 * again
    assert cost.surgery_solve == 4.5 * 46**3
    assert cost.solve == 4.5 * (28**3 + 37**3) + 0.5 * (4 * 37 * 36**2 + 22 * 36**3)


@pytest.mark.parametrize("method", ["tiny", "random"])
def test_refinement_costs_passes_over_the_images_of_the_update(method: str) -> None:
    settings = quick_settings(
        method=method,
        statistics=StatisticsSettings(min_images=20, max_images=20, batch_size=10),
        amplitude=AmplitudeSettings(images=30, smallest_exponent=-3, search="grid"),
    )
    refinement = RefinementSettings(fan_out="refit", candidates=3, passes=2)
    architecture = architecture_of("resnet", (3, 5))
    plain, refined = (
        CostModel(architecture, s, 96).extension(0, (3, 5), 2)
        for s in (settings, replace(settings, refinement=refinement))
    )
    behind = 4 * 8 * 64 + 2 * 9 * 8 * 5 * 16 + 8 * 3  # transition, second block, head
    # Twelve candidates: three for each neuron, of both signs.
    candidates, wide = (27 * 4 * 64 + 2 * 9 * 4 * m * 64 + behind for m in (3 + 12, 5))
    moments = 64 * (9 * 12 + 1) * (9 * 12 + 1 + 4)
    assert refined.statistics - plain.statistics == 20 * (candidates + behind + moments)
    # A direction is a training step; five losses choose how far to follow it.
    assert refined.search - plain.search == 2 * (20 * 3 + 30 * 5) * wide
    assert refined.solve == plain.solve


def test_few_patches_leave_fewer_directions_to_solve_for() -> None:
    def solve(images: int) -> float:
        statistics = StatisticsSettings(min_images=images, max_images=images, batch_size=images)
        settings = quick_settings(statistics=statistics)
        return (
            CostModel(architecture_of("resnet", (3, 5)), settings, 96).extension(1, (3, 5), 1).solve
        )

    assert solve(2) < solve(4) < solve(5) == solve(90)  # 73 patch entries, 16 positions an image


def test_a_moving_average_is_measured_too() -> None:
    one = quick_settings(method="random")
    two = replace(one, training=replace(one.training, ema=0.5))
    costs = [
        CostModel(architecture_of("mlp", (3, 5)), s, 96).extension(0, (3, 5), 1) for s in (one, two)
    ]
    assert costs[1].surgery == 2 * costs[0].surgery
    assert costs[1].search == costs[0].search


@pytest.mark.parametrize("search", ["grid", "first_increase", "bracket", "fixed"])
def test_searches_look_at_no_more_amplitudes_than_are_counted(search: str) -> None:
    settings = quick_settings(
        method="random",
        amplitude=AmplitudeSettings(images=32, smallest_exponent=-5, search=search),
    )
    network, architecture = resnet()
    done = grow(
        network,
        architecture,
        replace(architecture, middle_widths=(2, 4)),
        stream(),
        patterns(30, seed=2),
        replace(settings, extensions=1),
    )
    full = amplitudes(replace(settings.amplitude, normalization="none"))
    tried = [len(curve.amplitudes) for curve in done.curves]
    assert len(tried) == 2
    if search in ("first_increase", "bracket"):
        assert max(tried) <= full <= 6
    else:
        assert set(tried) == {full}


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"smallest_exponent": -20}, USUAL_END + 20 + 2),
        ({"smallest_exponent": -5}, 3),  # it cannot end before it has seen a rise
        ({"smallest_exponent": -20, "largest": 2.0**-9}, 12),
        ({"smallest_exponent": -20, "normalization": "none"}, 21),
        ({"smallest_exponent": -20, "search": "grid"}, 21),
        ({"smallest_exponent": -20, "search": "grid", "largest": 3.0}, 23),
        ({"search": "bracket"}, 8),
    ],
)
def test_amplitudes_that_a_search_looks_at(changes: dict[str, Any], count: int) -> None:
    assert amplitudes(AmplitudeSettings(**changes)) == count


# --- the plan


def plan_of(settings: GrowthSettings, **done: Any) -> PlanCost:
    start = architecture_of("resnet", (1, 2))
    return plan_cost(start, replace(start, middle_widths=(4, 8)), settings, 96, **done)


@pytest.mark.parametrize("train_after", ["site", "sweep"])
def test_the_plan_costs_what_growth_logs(train_after: str) -> None:
    settings = quick_settings(method="tiny", train_after=train_after, epochs_between=1.0)
    network, start = resnet()
    rows = grow(
        network,
        start,
        replace(start, middle_widths=(4, 8)),
        stream(),
        patterns(30, seed=2),
        settings,
    ).rows
    plan = plan_of(settings)
    assert plan.begin == start
    assert plan.end.middle_widths == rows[-1].widths
    assert plan.forwards == (rows[0].multiply_adds, rows[-1].multiply_adds)
    assert [v.forward for v in plan.visits] == [row.multiply_adds for row in rows[1:]]
    assert plan.evaluation == sum(row.multiply_adds for row in rows)
    extensions = [v.extension for v in plan.visits if v.extension is not None]
    assert sum(e.statistics_images for e in extensions) == rows[-1].statistics_images
    trained = sum(v.training_images for v in plan.visits)
    assert trained == (6 if train_after == "site" else 3) * 96
    assert abs(trained - rows[-1].images_seen) <= rows[-1].batch_size / 2


@pytest.mark.parametrize("done", [1, 3, 6])
def test_what_is_done_is_left_out(done: int) -> None:
    settings = quick_settings(epochs_between=0.5)
    whole, rest = plan_of(settings), plan_of(settings, done_visits=done)
    assert rest.visits == whole.visits[done:]
    assert rest.end == whole.end
    assert (
        rest.begin.middle_widths == [(1, 2), (2, 2), (2, 4), (3, 4), (3, 6), (4, 6), (4, 8)][done]
    )
    assert rest.evaluation == sum(v.forward for v in rest.visits)


def test_a_training_cut_short_goes_on_where_it_stopped() -> None:
    settings = quick_settings(epochs_between=0.5)
    # The third extension is made, and 20 of the 48 images behind it are trained on.
    rest = plan_of(settings, done_visits=3, done_images=2 * 48 + 20)
    assert [v.training_images for v in rest.visits] == [28, 48, 48, 48]
    assert [v.extension is None for v in rest.visits] == [True, False, False, False]


def test_a_control_that_never_grows_trains_all_the_same() -> None:
    plan = plan_of(quick_settings(method="none", epochs_between=0.5))
    assert plan.begin == plan.end
    assert len({v.forward for v in plan.visits}) == 1
    assert [v.extension for v in plan.visits] == [None] * 6
    assert math.isclose(sum(v.training_images for v in plan.visits), 6 * 48)


def test_nothing_is_added_where_the_start_is_the_end() -> None:
    start = architecture_of("resnet", (4, 8))
    plan = plan_cost(start, start, quick_settings(), 96)
    assert plan.begin == plan.end == start
    assert [v.extension for v in plan.visits] == [None] * 6


# --- plans that are decided on the way cost this much at most


def test_waiting_is_counted_at_its_longest() -> None:
    when = WhenSettings(trigger="plateau", max_epochs=1.5)
    whole, closed = plan_of(quick_settings(when=when)), plan_of(quick_settings())
    trained = [visit.training_images for visit in whole.visits]
    assert trained == [2 * 3 * 48, *[3 * 48] * 5]  # with the time before the first
    assert [v.extension for v in whole.visits] == [v.extension for v in closed.visits]
    assert whole.at_most
    assert not closed.at_most
    # What is done may have taken less time than it might have.
    rest = plan_of(quick_settings(when=when), done_visits=4, done_images=1)
    assert rest.visits == whole.visits[4:]


@pytest.mark.parametrize("method", ["tiny", "random"])
def test_a_choice_costs_the_moments_of_all_sites(method: str) -> None:
    greedy = WhereSettings(order="greedy", candidates=1)
    plain, chosen = (
        plan_of(quick_settings(method=method, where=w)) for w in (WhereSettings(), greedy)
    )
    tiny = plan_of(quick_settings(method="tiny"))
    first, alone = chosen.visits[0].extension, plain.visits[0].extension
    both = [visit.extension for visit in tiny.visits[:2]]
    assert first is not None
    assert alone is not None
    costs = [cost for cost in both if cost is not None]
    # The second site is a little wider by its own visit than in the choice before the first.
    assert first.solve == pytest.approx(alone.solve + sum(c.solve for c in costs), rel=0.05)
    assert first.statistics == pytest.approx(
        alone.statistics + sum(c.statistics for c in costs), rel=0.05
    )
    assert first.search == pytest.approx(alone.search + sum(c.search for c in costs) / 2, rel=0.1)
    assert first.surgery == alone.surgery
    assert chosen.visits[-1].extension == plain.visits[-1].extension  # one site is left: no choice


def test_budgets_alone_cost_nothing_but_may_end_growth() -> None:
    plan = plan_of(quick_settings(until=UntilSettings(parameters=5)))
    assert plan.visits == plan_of(quick_settings()).visits
    assert plan.at_most


def test_an_open_growth_costs_no_more_than_is_said() -> None:
    settings = quick_settings(
        where=WhereSettings(order="greedy", candidates=0, images=32),
        until=UntilSettings(multiply_adds=30_000),
    )
    network, start = resnet()
    rows = grow(
        network,
        start,
        replace(start, middle_widths=(4, 8)),
        stream(),
        patterns(30, seed=2),
        settings,
    ).rows
    plan = plan_of(settings)
    images = sum(v.extension.statistics_images for v in plan.visits if v.extension is not None)
    assert rows[-1].statistics_images <= images
    assert rows[-1].images_seen <= sum(v.training_images for v in plan.visits)
    assert sum(row.multiply_adds for row in rows) <= plan.evaluation
