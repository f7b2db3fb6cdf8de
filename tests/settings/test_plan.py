from typing import Any

import pytest

from tests.settings.refusal import check_form, check_words, refused
from tinygrow.errors import SettingError
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.plan import UntilSettings, WhenSettings, WhereSettings


@pytest.mark.parametrize("settings", [WhereSettings, WhenSettings, UntilSettings])
def test_form(settings: type) -> None:
    check_form(settings)
    check_words(settings)


def test_the_default_is_the_papers_order_to_the_end() -> None:
    growth = GrowthSettings()
    assert (growth.where.order, growth.when.trigger) == ("sweep", "every")
    assert growth.where.width_multiple == 1
    assert not growth.until.limited
    assert not growth.open_ended
    # Multiples change targets, not whether the sweeps are whole.
    assert not GrowthSettings(where=WhereSettings(width_multiple=8)).open_ended


@pytest.mark.parametrize(
    ("changes", "budgeted"),
    [
        ({"parameters": 1}, True),
        ({"multiply_adds": 1}, True),
        ({"latency_ms": 0.1}, True),
        ({"validation_accuracy": 1.0}, False),
        ({"no_significant_gain": True}, False),
    ],
)
def test_any_limit_opens_the_plan(changes: dict[str, Any], budgeted: bool) -> None:
    until = UntilSettings(**changes)
    assert until.limited
    assert until.budgeted is budgeted
    assert GrowthSettings(until=until).open_ended
    assert not GrowthSettings(until=until, method="none").open_ended


@pytest.mark.parametrize(
    ("settings", "name", "value", "remedy"),
    [
        (WhereSettings, "candidates", -1, "from 0 to 1000000"),
        (WhereSettings, "images", 1, "at least 2"),
        (WhereSettings, "latency_batch", 0, "from 1 to 65536"),
        (WhereSettings, "width_multiple", 0, "from 1 to 1000000"),
        (WhenSettings, "window", 0, "from 1 to 1000000"),
        (WhenSettings, "improvement", -0.1, "at least 0"),
        (WhenSettings, "max_epochs", -1.0, "from 0 to 1000000"),
        (WhenSettings, "z", 0.0, "greater than 0"),
        (UntilSettings, "parameters", -1, "at least 0"),
        (UntilSettings, "multiply_adds", -1, "at least 0"),
        (UntilSettings, "latency_ms", -1.0, "at least 0"),
        (UntilSettings, "validation_accuracy", 101.0, "from 0 to 100"),
    ],
)
def test_ranges(settings: type, name: str, value: Any, remedy: str) -> None:
    message = refused(settings, name, value)
    assert repr(value) in message and remedy in message


@pytest.mark.parametrize(
    "changes",
    [
        {"where": WhereSettings(order="greedy")},
        {"when": WhenSettings(trigger="plateau")},
        {"until": UntilSettings(parameters=9)},
    ],
)
def test_training_after_sweeps_needs_whole_sweeps(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"^train_after is 'sweep'; .*make it site$"):
        GrowthSettings(train_after="sweep", **changes)
    assert GrowthSettings(train_after="sweep", method="none", **changes).train_after == "sweep"


@pytest.mark.parametrize("trigger", ["plateau", "significant"])
@pytest.mark.parametrize(("between", "most"), [(0.0, 1.0), (0.5, 0.4)])
def test_waiting_needs_time_to_wait(trigger: Any, between: float, most: float) -> None:
    when = WhenSettings(trigger=trigger, max_epochs=most)
    with pytest.raises(SettingError, match=r"^when.max_epochs is "):
        GrowthSettings(epochs_between=between, when=when)
    assert GrowthSettings(epochs_between=most, when=when).when is when
