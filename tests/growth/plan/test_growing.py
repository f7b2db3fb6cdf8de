"""Plans at work: small growths from beginning to end."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from torch import nn

from tests.growth.scenes import patterns, perceptron, quick_settings, resnet, stream
from tinygrow.growth.grow import Grown, done_so_far, grow
from tinygrow.growth.plan import measured
from tinygrow.observer import Observer
from tinygrow.settings.plan import UntilSettings, WhenSettings, WhereSettings
from tinygrow.state.keeper import Capture, Keeper

GREEDY = WhereSettings(order="greedy", candidates=0, images=32)


class Listener(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.total = 0

    def begin(self, title: str, total: int, unit: str) -> None:
        self.total = total

    def say(self, line: str) -> None:
        self.lines.append(line)


def grown(
    kind: str = "resnet",
    start: tuple[int, ...] = (1, 2),
    final: tuple[int, ...] = (4, 8),
    listener: Listener | None = None,
    images: int = 96,
    keeper: Keeper | None = None,
    **changes: Any,
) -> Grown:
    network, architecture = resnet(middle=start) if kind == "resnet" else perceptron(start)
    return grow(
        network,
        architecture,
        replace(architecture, middle_widths=final),
        stream(images),
        patterns(30, seed=2),
        quick_settings(**changes),
        seed=1,
        observer=listener,
        keeper=keeper,
    )


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
def test_greedy_reaches_the_widths_and_logs_what_the_choice_took(kind: str) -> None:
    result = grown(kind, where=GREEDY)
    rows = result.rows[1:]
    assert result.architecture.middle_widths == (4, 8)
    assert result.ended == "the full widths are reached"
    for depth in {row.depth for row in rows}:
        assert [row.sweep for row in rows if row.depth == depth] == [1, 2, 3]
    # 64 and 64 of the extension; twice as many of the choice, while there is one, as are left of 96
    # besides those of the line search and those that are held out.
    taken = [b.statistics_images - a.statistics_images for a, b in pairwise(result.rows)]
    assert taken[0] == 128 + 2 * 32
    assert taken[-1] == 128
    assert all(row.seconds_statistics > 0 for row in rows)


@pytest.mark.parametrize(("dear", "first"), [("stages.0", 5), ("stages.1", 2)])
def test_greedy_shuns_what_costs_much(
    dear: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def times(networks: Sequence[nn.Module], *_: Any) -> list[float]:
        widths = [n.get_submodule(f"{dear}.block0.conv1").weight.shape[0] for n in networks]
        return [1.0 + 1e4 * width for width in widths]

    monkeypatch.setattr(measured, "milliseconds", times)
    result = grown(
        final=(2, 4),
        where=replace(GREEDY, score="per_latency"),
        epochs_between=0.0,
        extensions=1,
    )
    assert [row.depth for row in result.rows[1:]] == [first, 7 - first]


@pytest.mark.parametrize("order", ["sweep", "greedy"])
@pytest.mark.parametrize(
    "budget", [{"parameters": 1100}, {"multiply_adds": 33_000}], ids=["parameters", "operations"]
)
def test_a_budget_is_used_up_and_never_exceeded(order: str, budget: dict[str, int]) -> None:
    result = grown(
        where=replace(GREEDY, order=order), until=UntilSettings(**budget), epochs_between=0.1
    )
    (name, limit), last = next(iter(budget.items())), result.rows[-1]
    assert all(getattr(row, name) <= limit for row in result.rows)
    # A neuron costs 75 or 147 parameters, 4,608 or 2,304 multiply-adds.
    assert getattr(last, name) > limit - (75 if name == "parameters" else 2_304)
    assert "no further neurons fit" in result.ended
    assert result.architecture.middle_widths != (4, 8)


def test_a_seed_beyond_its_budget_does_not_grow() -> None:
    result = grown(until=UntilSettings(parameters=100))
    assert len(result.rows) == 1
    assert result.architecture.middle_widths == (1, 2)
    assert not result.network.training


def test_a_latency_budget_is_kept_by_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_width(networks: Sequence[nn.Module], *_: Any) -> list[float]:
        return [float(sum(p.numel() for p in n.parameters())) for n in networks]

    monkeypatch.setattr(measured, "milliseconds", by_width)
    result = grown(until=UntilSettings(latency_ms=1000.0), epochs_between=0.1)
    assert 925 < result.rows[-1].parameters <= 1000


def test_training_alone_waits_for_the_plateau() -> None:
    listener = Listener()
    result = grown(
        "mlp",
        final=(4, 5),
        listener=listener,
        when=WhenSettings(trigger="plateau", improvement=0.05, max_epochs=1.5),
    )
    rows = result.rows[1:]
    assert result.architecture.middle_widths == (4, 5)
    assert rows[0].site is None
    assert rows[0].train_loss is not None
    assert (rows[0].width_after, rows[0].sweep, rows[0].widths) == (None, 0, (1, 2))
    losses: list[float] = []
    for row in rows:
        if row.site is not None:  # then it was time
            enough = len(losses) == 3 or losses[-1] > 0.95 * losses[-2]
            assert enough
            losses = []
        else:
            assert len(losses) < 2 or losses[-1] <= 0.95 * losses[-2]
        assert row.train_loss is not None
        losses.append(row.train_loss)
    assert rows[-1].site is not None
    assert [row.extension for row in rows] == list(range(1, len(rows) + 1))
    assert listener.total == 7 * 3 * 48  # at most: six visits, each after 3 looks, and the first
    assert any(line.startswith("training 1/at most 21 train loss") for line in listener.lines)
    assert not any("sweeps took" in line for line in listener.lines)


class Counting(Keeper):
    """Notes after each step what a growth that goes on from there has done already."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []

    def step(self, capture: Capture) -> None:
        self.counts.append(done_so_far(capture()))


def test_training_alone_is_no_extension_that_is_done() -> None:
    keeper = Counting()
    result = grown(
        "mlp",
        when=WhenSettings(trigger="plateau", improvement=0.05, max_epochs=1.0),
        batch_growth="constant",
        extensions=1,
        final=(2, 3),
        keeper=keeper,
    )
    made, expected = 0, []
    for row in result.rows[1:]:
        made += row.site is not None
        expected += [made] * 3  # steps of 16 images in half an epoch of 96
    assert [extensions for extensions, _ in keeper.counts] == expected
    assert [images for _, images in keeper.counts] == [16 * (i + 1) for i in range(len(expected))]
    assert expected[0] == 0
    assert expected[-1] == 2


def test_significance_extends_early_and_ends_growth_when_all_is_learnt() -> None:
    listener = Listener()
    result = grown(
        where=replace(GREEDY, order="sweep", images=100),
        when=WhenSettings(trigger="significant", max_epochs=1.0, z=2.0),
        images=300,
        epochs_between=1.0,
        listener=listener,
    )
    assert result.rows[1].site is not None  # an untrained network lacks everything
    assert "no site has a significant gain" in result.ended
    assert listener.lines[-1] == f"growth ends: {result.ended}"
    assert result.architecture.middle_widths != (4, 8)


def test_an_accuracy_ends_growth() -> None:
    result = grown(until=UntilSettings(validation_accuracy=60.0), epochs_between=2.0)
    assert result.rows[-1].validation_accuracy >= 60
    assert all(row.validation_accuracy < 60 for row in result.rows[:-1])
    assert "until.validation_accuracy (60 %)" in result.ended


@pytest.mark.parametrize("order", ["sweep", "greedy"])
def test_widths_are_kept_to_multiples(order: str) -> None:
    result = grown(
        start=(2, 3),
        final=(8, 12),
        where=replace(GREEDY, order=order, width_multiple=4),
        epochs_between=0.1,
    )
    assert result.architecture.middle_widths == (8, 12)
    for row in result.rows[1:]:
        for width, start in zip(row.widths, (2, 3), strict=True):
            assert width == start or width % 4 == 0


def test_fewer_directions_than_a_multiple_are_left() -> None:
    # Behind the last hidden layer there are 2 directions at most.
    result = grown("mlp", start=(4, 3), final=(8, 8), where=WhereSettings(width_multiple=4))
    for row in result.rows:
        assert row.widths[0] % 4 == 0
        assert row.widths[1] in (3, 4)
