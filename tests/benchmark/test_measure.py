from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tinygrow.benchmark import measure as module
from tinygrow.benchmark.measure import Call, Cell, Contender, Plan, measure
from tinygrow.errors import TinygrowError

SHAPE = (1, 2, 2)


class Clock:
    """A clock that only the contenders move."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def contender(
    name: str, calls: list[tuple[str, int]], clock: Clock, seconds: Callable[[int], float]
) -> Contender:
    """Return one whose n-th timed call, from 0, takes `seconds(n)`."""

    def prepare(images: np.ndarray) -> Call:
        def call() -> None:
            clock.now += seconds(len(calls))
            calls.append((name, len(images)))

        return call

    return Contender(engine="onnxruntime", variant=name, device="cpu", prepare=prepare)


def test_every_cell_gets_its_runs_in_turns(clock: Clock) -> None:
    calls: list[tuple[str, int]] = []
    both = [contender(name, calls, clock, lambda _: 0.5) for name in "ab"]
    cells = measure(both, SHAPE, Plan(batches=(4, 1), runs=12, warm_up=8))
    assert [(cell.variant, cell.batch, cell.runs, cell.cut) for cell in cells] == [
        ("a", 1, 12, False),
        ("b", 1, 12, False),
        ("a", 4, 12, False),
        ("b", 4, 12, False),
    ]
    # One call when it is prepared, 8 and then 2 to warm up in each of 4 more turns, 12 timed.
    assert len(calls) == 4 * (1 + 8 + 4 * 2 + 12)
    order = [name for name, batch in calls if batch == 4][2:]
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == ["a", "b"] * module.ROUNDS


def test_figures_are_those_of_the_timed_calls(clock: Clock) -> None:
    calls: list[tuple[str, int]] = []
    # Nothing is warm at first: a call takes 9 s until 3 were made, then 1 s, but each fifth 2 s.
    one = contender("a", calls, clock, lambda n: 9.0 if n < 3 else 1.0 + (n % 5 == 0))
    (cell,) = measure([one], SHAPE, Plan(batches=(8,), runs=100, warm_up=4))
    assert cell.p50_ms == 1000.0
    assert cell.p90_ms == cell.p99_ms == 2000.0
    assert cell.images_per_second == 8.0
    assert cell.wanted == 100


def test_a_budget_cuts_the_slow_ones_and_is_kept(clock: Clock) -> None:
    calls: list[tuple[str, int]] = []
    quick = contender("quick", calls, clock, lambda _: 0.001)
    slow = contender("slow", calls, clock, lambda _: 1.0)
    plan = Plan(batches=(1, 2), runs=50, warm_up=1, seconds=60.0)
    cells = measure([quick, slow], SHAPE, plan)
    assert [cell.cut for cell in cells] == [False, True, False, True]
    assert all(cell.runs >= module.ROUNDS for cell in cells)
    assert clock.now - 100 < 60 + 2 * 2 * module.ROUNDS  # it may run over by a call a turn
    assert clock.now - 100 > 45


def test_without_a_budget_nothing_is_cut(clock: Clock) -> None:
    slow = contender("slow", [], clock, lambda _: 1000.0)
    (cell,) = measure([slow], SHAPE, Plan(batches=(1,), runs=7, warm_up=1))
    assert (cell.runs, cell.cut) == (7, False)


def test_one_that_cannot_run_says_why_and_the_others_are_measured(clock: Clock) -> None:
    def broken(_: np.ndarray) -> Call:
        raise TinygrowError("no compiler;\ninstall one")

    other = contender("a", [], clock, lambda _: 1.0)
    bad = replace(other, variant="compiled", prepare=broken)
    first, second = measure([bad, other], SHAPE, Plan(batches=(1,), runs=5))
    assert first == Cell(
        engine="onnxruntime",
        variant="compiled",
        device="cpu",
        batch=1,
        runs=0,
        wanted=5,
        reason="no compiler; install one",
    )
    assert second.runs == 5


def test_all_get_the_same_images() -> None:
    seen: list[np.ndarray] = []

    def prepare(images: np.ndarray) -> Call:
        seen.append(images.copy())
        return lambda: None

    one = Contender(engine="pytorch", variant="eager", device="cpu", prepare=prepare)
    measure([one, one], SHAPE, Plan(batches=(3,), runs=5))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0].dtype, seen[0].shape) == (np.uint8, (3, *SHAPE))
