from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.errors import TinygrowError
from tinygrow.growth.schedule import (
    check_plan,
    most_neurons,
    neurons_per_extension,
    visits,
    whole,
)
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.network import ResNetSettings
from tinygrow.settings.plan import WhereSettings


def widths(base_width: int, start: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    settings = ResNetSettings(base_width=base_width, start=start)
    final = final_architecture(settings, (3, 32, 32), 100)
    return seed_architecture(settings, final).middle_widths, final.middle_widths


@pytest.mark.parametrize(
    ("base_width", "start", "extensions", "steps"),
    [
        (64, 1 / 4, 16, (3, 3, 6, 6, 12, 12, 24, 24)),
        (64, 1 / 64, 21, (3, 3, 6, 6, 12, 12, 24, 24)),
        (16, 1 / 4, 12, (1, 1, 2, 2, 4, 4, 8, 8)),
        (64, 1.0, 5, (0,) * 8),
    ],
)
def test_neurons_per_extension(
    base_width: int, start: float, extensions: int, steps: tuple[int, ...]
) -> None:
    assert neurons_per_extension(*widths(base_width, start), extensions) == steps


@pytest.mark.parametrize(
    ("base_width", "start", "works"),
    [
        (64, 1 / 4, "1, 2, 3, 4, 6, 8, 12, 16, 24, 48"),
        (64, 1 / 64, "1, 3, 7, 9, 21, 63"),
        (16, 1 / 4, "1, 2, 3, 4, 6, 12"),
    ],
)
def test_the_error_names_the_numbers_that_work(base_width: int, start: float, works: str) -> None:
    with pytest.raises(TinygrowError, match="extensions is 5") as caught:
        neurons_per_extension(*widths(base_width, start), 5)

    assert str(caught.value).endswith(f"work: {works}")
    assert "\n" not in str(caught.value)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 40)), min_size=1, max_size=4),
    st.integers(1, 50),
)
def test_a_plan_comes_out_whole_or_names_exactly_what_does(
    starts_and_gaps: list[tuple[int, int]], extensions: int
) -> None:
    start = [s for s, _ in starts_and_gaps]
    final = [s + gap for s, gap in starts_and_gaps]
    works = [
        n for n in range(1, 41) if all((b - a) % n == 0 for a, b in zip(start, final, strict=True))
    ]
    try:
        steps = neurons_per_extension(start, final, extensions)
    except TinygrowError as error:
        named = [int(n) for n in str(error).rsplit(": ", 1)[1].split(", ")]
        assert named == works
        assert extensions not in works
    else:
        assert extensions in works or start == final
        assert [a + extensions * n for a, n in zip(start, steps, strict=True)] == final


def test_a_start_wider_than_the_end_is_refused() -> None:
    with pytest.raises(TinygrowError, match=r"\[4, 9\] exceed the final widths \[8, 8\]"):
        neurons_per_extension([4, 9], [8, 8], 1)


def test_every_sweep_visits_every_site_in_order_of_depth() -> None:
    plan = list(visits([1, 2], [4, 8], 3))

    assert [(v.sweep, v.index, v.target, v.ends_sweep) for v in plan] == [
        (1, 0, 2, False),
        (1, 1, 4, True),
        (2, 0, 3, False),
        (2, 1, 6, True),
        (3, 0, 4, False),
        (3, 1, 8, True),
    ]


# --- widths kept to multiples


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), min_size=1, max_size=3),
    st.integers(1, 9),
    st.integers(2, 9),
)
def test_every_visit_reaches_a_multiple_and_the_last_the_end(
    starts_and_more: list[tuple[int, int]], extensions: int, multiple: int
) -> None:
    start = [s for s, _ in starts_and_more]
    # The next multiple, and so many more; or nothing to add.
    final = [-(-s // multiple) * multiple + n * multiple if n else s for s, n in starts_and_more]
    widths = list(start)
    added: list[list[int]] = [[] for _ in start]
    for visit in visits(start, final, extensions, multiple):
        exact = start[visit.index] + (final[visit.index] - start[visit.index]) * (
            visit.sweep / extensions
        )
        assert exact - 1e-9 <= visit.target < exact + multiple + 1e-9
        if visit.target > widths[visit.index]:
            assert visit.target % multiple == 0
        added[visit.index].append(visit.target - widths[visit.index])
        widths[visit.index] = visit.target
    assert widths == final
    assert all(n >= 0 for site in added for n in site)
    largest = most_neurons(start, final, extensions, multiple)
    assert largest == tuple(max(site) for site in added)


def plan_of(
    kind: str, start: tuple[int, ...], final: tuple[int, ...], extensions: int, multiple: int = 1
) -> None:
    """Check a plan."""
    named = {"network": "networks.own:own"} if kind == "custom" else {}
    architecture = Architecture(kind=kind, input_shape=(1, 8, 8), classes=2, **named)
    check_plan(
        replace(architecture, middle_widths=start),
        replace(architecture, middle_widths=final),
        GrowthSettings(extensions=extensions, where=WhereSettings(width_multiple=multiple)),
    )


def test_a_multiple_of_one_is_the_papers_plan() -> None:
    assert list(visits([1, 2], [4, 8], 3, 1)) == list(visits([1, 2], [4, 8], 3))
    plan_of("mlp", (1, 2), (4, 8), 3)
    with pytest.raises(TinygrowError, match="extensions is 5"):
        plan_of("mlp", (1, 2), (4, 8), 5)


def test_extensions_of_a_users_network_may_differ_by_a_neuron() -> None:
    plan_of("custom", (1, 2), (4, 8), 5)
    targets = [visit.target for visit in visits([1, 2], [4, 8], 5) if visit.index == 1]
    assert targets == [4, 5, 6, 7, 8]


def test_final_widths_that_are_no_multiples_are_named() -> None:
    for kind in ("mlp", "custom"):
        with pytest.raises(
            TinygrowError, match="width_multiple is 8, of which the final widths 12, 20 are no"
        ):
            plan_of(kind, (4, 4, 4, 5), (12, 20, 16, 5), 3, 8)
    plan_of("mlp", (4, 5), (16, 5), 3, 8)
    assert most_neurons([4, 5], [16, 5], 3, 8) == (8, 0)  # 4, 8, 16


@pytest.mark.parametrize(
    ("width", "count", "neurons"),
    [(5, 3, 3), (5, 2, 0), (5, 12, 11), (8, 7, 0), (8, 8, 8), (5, 0, 0), (8, 0, 0)],
)
def test_neurons_that_make_a_width_whole(width: int, count: int, neurons: int) -> None:
    assert whole(width, count, 8) == neurons
