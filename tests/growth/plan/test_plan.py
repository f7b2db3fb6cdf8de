"""Which visit comes next: plans as pure functions of made-up findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth.scenes import perceptron, resnet
from tinygrow.errors import TinygrowError
from tinygrow.growth.log import ExtensionRow
from tinygrow.growth.plan.facts import Progress, progress_of
from tinygrow.growth.plan.plan import End, Plan, TrainOn
from tinygrow.growth.plan.significance import threshold
from tinygrow.growth.plan.until import Budget, fitting, most_that
from tinygrow.growth.plan.when import most_steps, most_trainings, on_plateau
from tinygrow.growth.schedule import Visit, check_plan, visits
from tinygrow.growth.sites import sites_of
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.plan import UntilSettings, WhenSettings, WhereSettings

START, FINAL = (1, 2, 2), (4, 8, 2)  # the third site has nothing to add
GREEDY = WhereSettings(order="greedy", candidates=0)


@dataclass
class Found:
    predicted: float = 1.0
    held_out: float = 1.0
    errors: float = 9.0
    asked: list[str] = field(default_factory=list)

    def gain(self) -> float:
        self.asked.append("gain")
        return self.held_out

    def significance(self) -> float:
        return self.errors


@dataclass
class Fake:
    """Evidence by the index of the site."""

    found: dict[int, Found] = field(default_factory=lambda: {i: Found() for i in range(3)})
    costs: dict[int, float] = field(default_factory=lambda: {i: 1.0 for i in range(3)})
    room: dict[int, int] = field(default_factory=lambda: {i: 99 for i in range(3)})
    studied: list[list[int]] = field(default_factory=list)

    def fitting(self, visit: Visit) -> int:
        return self.room[visit.index]

    def cost(self, visit: Visit) -> float:
        return self.costs[visit.index]

    def study(self, visits: Sequence[Visit]) -> Mapping[int, Found]:
        self.studied.append([visit.index for visit in visits])
        return self.found


class Untouchable:
    """Evidence that a plan has no business with."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is asked for")


def settings_of(**changes: Any) -> GrowthSettings:
    return GrowthSettings(**({"extensions": 3, "epochs_between": 0.5} | changes))


def plan_of(**changes: Any) -> Plan:
    return Plan(START, FINAL, settings_of(**changes))


def at(
    widths: tuple[int, ...] = START, visited: tuple[int, ...] = (0, 0, 0), **facts: Any
) -> Progress:
    return Progress(widths=widths, visits=visited, **facts)


def followed(plan: Plan, evidence: Any, widths: tuple[int, ...] = START) -> list[Visit]:
    """Follow the plan to its end, every neuron found."""
    done, visited = [], [0] * len(widths)
    while not isinstance(
        step := plan.next(at(widths, tuple(visited), trainings=99), evidence), End
    ):
        assert isinstance(step, Visit)
        done.append(step)
        widths = (*widths[: step.index], step.target, *widths[step.index + 1 :])
        visited[step.index] += 1
    return done


# --- where


def test_the_default_is_the_papers_sweep_and_measures_nothing() -> None:
    plan = plan_of()
    assert followed(plan, Untouchable()) == list(visits(START, FINAL, 3))
    assert (plan.length, plan.trainings) == ("9", 9)
    assert plan_of(train_after="sweep").trainings == 3


def test_a_control_that_never_grows_keeps_the_sweep() -> None:
    plan = plan_of(method="none", where=GREEDY, until=UntilSettings(parameters=1))
    found = []
    for number in range(9):
        visited = tuple((number + 2 - i) // 3 for i in range(3))
        found.append(plan.next(at(visited=visited), Untouchable()))
    assert found == list(visits(START, FINAL, 3))
    assert isinstance(plan.next(at(visited=(3, 3, 3)), Untouchable()), End)


def test_the_end_says_whether_the_widths_are_reached() -> None:
    plan = plan_of()
    assert plan.next(at(FINAL, (3, 3, 3)), Untouchable()) == End("the full widths are reached")
    assert plan.next(at((3, 8, 2), (3, 3, 3)), Untouchable()) == End(
        "each site has had its 3 visits"
    )


@pytest.mark.parametrize(
    ("gains", "costs", "index"),
    [
        ((1.0, 2.0, 0), (1, 1, 1), 1),
        ((1.0, 2.0, 0), (1, 3, 1), 0),
        ((-1.0, -2.0, 0), (1, 1, 1), 0),
        ((0.0, -2.0, 0), (1, 100, 1), 0),
    ],
)
def test_greedy_takes_the_largest_gain_for_its_cost(
    gains: tuple[float, ...], costs: tuple[float, ...], index: int
) -> None:
    evidence = Fake({i: Found(held_out=g) for i, g in enumerate(gains)}, dict(enumerate(costs)))
    step = plan_of(where=GREEDY).next(at(), evidence)
    assert isinstance(step, Visit)
    assert (step.index, step.sweep, step.target) == (index, 1, (2, 4)[index])
    assert evidence.studied == [[0, 1]]  # the third has nothing to add


def test_greedy_measures_only_the_best_candidates_for_their_cost() -> None:
    evidence = Fake({0: Found(predicted=3, held_out=1), 1: Found(predicted=4, held_out=50)})
    evidence.costs[1] = 2.0
    step = plan_of(where=WhereSettings(order="greedy", candidates=1)).next(at(), evidence)
    assert isinstance(step, Visit)
    assert step.index == 0
    assert not evidence.found[1].asked


def test_greedy_makes_the_same_visits_in_another_order() -> None:
    evidence = Fake({0: Found(held_out=1), 1: Found(held_out=2), 2: Found()})
    order = followed(plan_of(where=GREEDY), evidence)
    assert [(v.index, v.target) for v in order] == [(1, 4), (1, 6), (1, 8), (0, 2), (0, 3), (0, 4)]


def test_a_single_site_is_taken_unmeasured() -> None:
    step = plan_of(where=GREEDY).next(at((4, 4, 2), (3, 1, 0)), Untouchable())
    assert isinstance(step, Visit)
    assert (step.index, step.target) == (1, 6)


def test_neurons_that_were_not_found_are_made_up_for_while_visits_last() -> None:
    plan = plan_of(where=GREEDY)
    step = plan.next(at((1, 8, 2), (2, 3, 0)), Untouchable())
    assert isinstance(step, Visit)
    assert (step.index, step.target) == (0, 4)
    assert isinstance(plan.next(at((1, 8, 2), (3, 3, 0)), Untouchable()), End)


# --- when


@pytest.mark.parametrize(
    ("losses", "window", "share", "flat"),
    [
        ([], 1, 0.1, False),
        ([1.0], 1, 0.1, False),
        ([1.0, 0.89], 1, 0.1, False),
        ([1.0, 0.91], 1, 0.1, True),
        ([1.0, 1.2], 1, 0.1, True),
        ([9.0, 1.0, 0.95], 1, 0.1, True),  # what came before does not count
        ([9.0, 1.0, 0.95], 2, 0.1, False),
        ([1.0, 1.0, 0.9, 1.0], 2, 0.1, True),
        ([1.0, 1.0, 0.5, 1.0], 2, 0.1, False),
        ([1.0, 0.999], 1, 0.0, False),
    ],
)
def test_a_plateau(losses: list[float], window: int, share: float, flat: bool) -> None:
    assert on_plateau(losses, window, share) is flat


def test_extensions_wait_for_a_plateau_but_not_for_ever() -> None:
    plan = plan_of(when=WhenSettings(trigger="plateau", improvement=0.1, max_epochs=1.5))
    first = next(visits(START, FINAL, 3))
    assert plan.next(at(), Fake()) == TrainOn()  # the seed network is to be trained first
    assert plan.next(at(trainings=1, losses=(1.0,)), Fake()) == TrainOn()
    assert plan.next(at(trainings=2, losses=(1.0, 0.5)), Fake()) == TrainOn()
    assert plan.next(at(trainings=2, losses=(1.0, 0.95)), Fake()) == first
    assert plan.next(at(trainings=3, losses=(1.0, 0.5, 0.1)), Fake()) == first
    assert plan.trains_after(TrainOn())
    assert plan.length == "at most 30"  # nine visits and the time before the first, each 3 looks


def test_extensions_wait_for_a_significant_gain_and_growth_ends_without() -> None:
    plan = plan_of(when=WhenSettings(trigger="significant", max_epochs=1.0, z=2.0))
    evidence = Fake()
    level = threshold(2.0, 2)
    evidence.found[0].errors, evidence.found[1].errors = level - 0.01, level + 0.01
    step = plan.next(at(), evidence)
    assert isinstance(step, Visit)
    assert (step.index, step.sweep) == (1, 1)  # the first site of the sweep is passed over
    evidence.found[1].errors = level - 0.01
    assert plan.next(at(trainings=1), evidence) == TrainOn()
    end = plan.next(at(trainings=2), evidence)
    assert isinstance(end, End)
    assert "no site has a significant gain" in end.reason


def test_greedy_chooses_among_significant_sites() -> None:
    evidence = Fake()
    evidence.found[1].held_out, evidence.found[1].errors = 100.0, 0.0
    step = plan_of(
        where=GREEDY, until=UntilSettings(no_significant_gain=True), train_after="site"
    ).next(at(), evidence)
    assert isinstance(step, Visit)
    assert step.index == 0


@pytest.mark.parametrize("trigger", ["every", "plateau"])
def test_growth_may_end_as_soon_as_no_gain_is_significant(trigger: str) -> None:
    plan = plan_of(
        when=WhenSettings(trigger=trigger), until=UntilSettings(no_significant_gain=True)
    )
    evidence = Fake({i: Found(errors=0.5) for i in range(3)})
    step = plan.next(at(trainings=9, losses=(1.0, 1.0)), evidence)
    assert isinstance(step, End)


def test_waiting_is_counted_in_looks() -> None:
    def most(epochs_between: float, max_epochs: float, trigger: str = "plateau") -> int:
        when = WhenSettings(trigger=trigger, max_epochs=max_epochs)
        return most_trainings(settings_of(epochs_between=epochs_between, when=when))

    assert [most(0.5, 0.5), most(0.5, 1.9), most(0.1, 0.3), most(0.25, 2.0)] == [1, 3, 3, 8]
    assert most(0.5, 2.0, "every") == 1
    assert most_steps(settings_of(), 9) == 9
    assert most_steps(settings_of(method="none", when=WhenSettings(trigger="plateau")), 9) == 9


# --- until when


def test_a_validation_accuracy_ends_growth() -> None:
    plan = plan_of(until=UntilSettings(validation_accuracy=90.0))
    assert isinstance(plan.next(at(accuracy=89.9), Fake()), Visit)
    end = plan.next(at(accuracy=90.0), Fake())
    assert isinstance(end, End)
    assert "90.00 %" in end.reason


def test_extensions_are_cut_to_what_fits_or_left_out() -> None:
    plan = plan_of(until=UntilSettings(parameters=5))
    evidence = Fake(room={0: 0, 1: 1, 2: 0})
    step = plan.next(at(), evidence)
    assert isinstance(step, Visit)
    assert (step.index, step.target) == (1, 3)
    evidence.room[1] = 0
    assert plan.next(at(), evidence) == End("no further neurons fit into the budget under until")


def test_what_is_cut_keeps_to_multiples() -> None:
    settings = settings_of(where=WhereSettings(width_multiple=4), until=UntilSettings(parameters=5))
    plan = Plan((2, 4), (8, 24), settings)
    step = plan.next(Progress((2, 4), (0, 0)), Fake(room={0: 1, 1: 5}))
    assert isinstance(step, Visit)
    assert (step.index, step.target) == (1, 8)  # 2 + 1 is none, 4 + 5 has 8 below it


def test_only_budgets_ask_what_fits() -> None:
    plan = plan_of(until=UntilSettings(validation_accuracy=90.0))
    assert isinstance(plan.next(at(), Untouchable()), Visit)


@given(
    st.integers(0, 50),
    st.lists(
        st.builds(Budget, st.integers(0, 500), st.integers(0, 500), st.integers(1, 30)), max_size=3
    ),
)
def test_as_many_neurons_as_every_budget_allows(count: int, budgets: list[Budget]) -> None:
    def allowed(neurons: int) -> bool:
        return all(not b.limit or b.used + neurons * b.each <= b.limit for b in budgets)

    found = fitting(count, budgets)
    assert 0 <= found <= count
    assert found == 0 or allowed(found)
    assert found == count or not allowed(found + 1)


@given(st.integers(1, 200), st.integers(0, 250))
def test_bisection_finds_the_most_that_fits_in_few_measurements(count: int, room: int) -> None:
    asked = []

    def fits(neurons: int) -> bool:
        asked.append(neurons)
        return neurons <= room

    assert most_that(fits, count) == min(count, room)
    assert len(asked) <= 1 + count.bit_length()
    assert 0 not in asked


# --- what a plan is told


def test_progress_is_read_from_the_log() -> None:
    sites = sites_of(resnet()[1])

    def row(site: str | None, loss: float | None, accuracy: float = 0.0) -> ExtensionRow:
        return ExtensionRow(
            extension=0,
            sweep=0,
            site=site,
            widths=(),
            parameters=0,
            multiply_adds=0,
            train_loss=loss,
            validation_loss=0.0,
            validation_accuracy=accuracy,
            epochs=0.0,
            images_seen=0,
            statistics_images=0,
        )

    first, second = (site.name for site in sites)
    seed = [row(None, None, 10.0)]
    assert progress_of(seed, sites, (1, 2)) == Progress((1, 2), (0, 0), 0, (), 10.0)
    waited = [*seed, row(None, 3.0), row(None, 2.0, 20.0)]
    assert progress_of(waited, sites, (1, 2)) == Progress((1, 2), (0, 0), 2, (3.0, 2.0), 20.0)
    grown = [*waited, row(second, 1.5), row(first, 1.2), row(None, float("nan"), 30.0)]
    assert progress_of(grown, sites, (2, 4)) == Progress((2, 4), (1, 1), 2, (1.2,), 30.0)


def test_a_plan_that_is_not_whole_is_refused() -> None:
    start, final = (perceptron(widths)[1] for widths in (START, FINAL))
    with pytest.raises(TinygrowError, match="extensions is 5"):
        check_plan(start, final, settings_of(extensions=5))
    with pytest.raises(TinygrowError, match="width_multiple is 8, of which the final widths 4"):
        check_plan(start, final, settings_of(where=WhereSettings(width_multiple=8)))
