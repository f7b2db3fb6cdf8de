import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrow.growth.line_search import bracket_losses, search
from tinygrow.settings.growth import AmplitudeSettings

BRACKET = AmplitudeSettings(search="bracket")


def fake(losses: dict[float, float]) -> object:
    """Return a loss function that takes the value of the largest named amplitude below."""

    def loss_at(gamma: float) -> float:
        return losses[max(a for a in losses if a <= gamma)]

    return loss_at


def test_amplitudes_are_zero_and_the_powers_of_two_below_the_largest() -> None:
    for largest, top in ((1.0, 0.5), (20.0, 16.0), (16.0, 8.0), (1.5, 1.0)):
        settings = AmplitudeSettings(largest=largest, search="grid")

        amplitudes, losses = search(lambda gamma: 1.0, settings)

        assert amplitudes[:2] == [0.0, 2.0**-27]
        assert amplitudes[-1] == top
        assert all(b == 2 * a for a, b in pairwise(amplitudes[1:]))
        assert losses == [1.0] * len(amplitudes)


def test_the_search_stops_behind_the_first_increase() -> None:
    loss_at = fake({0.0: 1.0, 2.0**-20: 0.9, 2.0**-10: 0.8, 2.0**-9: 0.85, 2.0**-3: 0.1})

    first, losses = search(loss_at, AmplitudeSettings())
    grid, all_losses = search(loss_at, AmplitudeSettings(search="grid"))

    assert first[-1] == 2.0**-9
    assert losses[-1] == 0.85
    assert min(losses) == 0.8
    assert grid[-1] == 0.5
    assert min(all_losses) == 0.1
    assert grid[: len(first)] == first


def test_rises_within_the_tolerance_do_not_stop_the_search() -> None:
    # In units of the loss at zero, 10: a rise of 1e-6 is 1e-7 of it.
    loss_at = fake({0.0: 10.0, 2.0**-20: 10.0 + 0.9e-6, 2.0**-5: 9.0})

    amplitudes, _ = search(loss_at, AmplitudeSettings(tolerance=1e-7))
    strict, _ = search(loss_at, AmplitudeSettings(tolerance=0.8e-7))

    assert amplitudes[-1] == 0.5
    assert strict[-1] == 2.0**-20


@pytest.mark.parametrize("kind", ["first_increase", "grid"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_overflow_ends_the_search_and_stays_out_of_the_curve(bad: float, kind: str) -> None:
    loss_at = fake({0.0: 1.0, 2.0**-10: 0.5, 2.0**-5: bad})

    amplitudes, losses = search(loss_at, AmplitudeSettings(search=kind))

    assert amplitudes[-1] == 2.0**-6
    assert len(losses) == len(amplitudes)
    assert losses[-1] == min(losses) == 0.5


@given(
    st.lists(st.integers(0, 20), min_size=29, max_size=29),
    st.sampled_from(["first_increase", "grid"]),
)
def test_the_search_sees_a_prefix_of_the_grid(values: list[int], kind: str) -> None:
    curve = [1.0 + v / 20 for v in values]
    calls: list[float] = []

    def loss_at(gamma: float) -> float:
        calls.append(gamma)
        return curve[len(calls) - 1]

    amplitudes, losses = search(loss_at, AmplitudeSettings(search=kind))

    assert calls == amplitudes
    assert losses == curve[: len(losses)]
    rises = [i for i in range(1, 28) if curve[i] > curve[i - 1]]
    expected = rises[0] + 1 if rises and kind == "first_increase" else 28
    assert len(amplitudes) == expected


# --- closing in on the lowest


@given(st.integers(0, 26), st.integers(1, 27))
def test_the_bracket_finds_the_lowest_of_losses_that_fall_and_rise(
    lowest: int, places: int
) -> None:
    settings = AmplitudeSettings(search="bracket", smallest_exponent=-places)
    best = 2.0 ** (lowest % places - places)

    def loss_at(gamma: float) -> float:
        return 30.0 if gamma == 0.0 else abs(math.log2(gamma / best))

    amplitudes, losses = search(loss_at, settings)

    assert amplitudes[losses.index(min(losses))] == best
    assert len(losses) <= bracket_losses(settings) <= 8
    assert amplitudes == sorted(amplitudes) and amplitudes[0] == 0.0
    assert losses == [loss_at(gamma) for gamma in amplitudes]


def test_the_bracket_looks_at_no_amplitude_twice() -> None:
    calls: list[float] = []

    def loss_at(gamma: float) -> float:
        calls.append(gamma)
        return -gamma

    search(loss_at, BRACKET)

    assert len(calls) == len(set(calls)) <= bracket_losses(BRACKET) == 8


def test_small_amplitudes_that_change_nothing_do_not_hold_the_bracket() -> None:
    # A step of rounding, up and down, below the amplitudes that count.
    loss_at = fake({0.0: 1.0, 2.0**-24: 1.0 + 5e-8, 2.0**-12: 1.0, 2.0**-6: 0.9, 2.0**-3: 1.1})

    amplitudes, losses = search(loss_at, BRACKET)

    assert min(losses) == 0.9
    assert 2.0**-6 <= amplitudes[losses.index(0.9)] < 2.0**-3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("first", [-26, -14, -5, 0])
def test_the_bracket_stays_below_an_overflow(bad: float, first: int) -> None:
    def loss_at(gamma: float) -> float:
        return bad if gamma >= 2.0**first else 1.0 - gamma

    amplitudes, losses = search(loss_at, BRACKET)

    assert all(map(math.isfinite, losses))
    assert amplitudes[-1] == 2.0 ** (first - 1)
    assert losses[-1] == min(losses)


def test_a_bracket_of_overflows_leaves_amplitude_zero() -> None:
    amplitudes, losses = search(lambda gamma: math.nan if gamma else 1.0, BRACKET)

    assert (amplitudes, losses) == ([0.0], [1.0])
