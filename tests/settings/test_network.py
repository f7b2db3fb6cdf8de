from typing import Any

import pytest

from tests.settings.refusal import check_form, refused
from tinygrow.settings.network import MLPSettings, ResNetSettings


def test_form() -> None:
    check_form(ResNetSettings)
    check_form(MLPSettings)


def test_the_default_is_the_papers_resnet_18() -> None:
    settings = ResNetSettings()
    assert (settings.base_width, settings.blocks, settings.start) == (64, (2, 2, 2, 2), 0.25)


@pytest.mark.parametrize(
    ("settings", "name", "value", "remedy"),
    [
        (ResNetSettings, "base_width", 0, "from 1 to 4096"),
        (ResNetSettings, "base_width", 4097, "from 1 to 4096"),
        (ResNetSettings, "blocks", (), r"[]; it must name at least one stage"),
        (ResNetSettings, "blocks", (2, 0), r"[2, 0]; it must name at least one stage"),
        (ResNetSettings, "blocks", (2, 1001), "each with 1 to 1000 blocks"),
        (ResNetSettings, "start", 0.0, "greater than 0"),
        (ResNetSettings, "start", 1.01, "at most 1"),
        (MLPSettings, "hidden", (), r"[]; it must name at least one width"),
        (MLPSettings, "hidden", (3, 0), r"[3, 0]; it must name at least one width"),
        (MLPSettings, "hidden", (3, 1_000_001), "each from 1 to 1000000"),
        (MLPSettings, "start", -0.5, "greater than 0"),
        (MLPSettings, "start", 2.0, "at most 1"),
    ],
)
def test_ranges(settings: type, name: str, value: Any, remedy: str) -> None:
    assert remedy in refused(settings, name, value)


def test_the_limits_themselves_are_allowed() -> None:
    assert ResNetSettings(base_width=4096, blocks=(1000, 1)).base_width == 4096
    assert MLPSettings(hidden=(1_000_000,)).hidden == (1_000_000,)


def test_growth_from_full_width_is_allowed() -> None:
    assert ResNetSettings(start=1.0).start == MLPSettings(start=1.0).start == 1.0
