from typing import Any

import pytest

from tests.settings.refusal import check_form, check_words, refused
from tinygrow.settings.compress import CompressSettings, StabilitySettings


def test_form() -> None:
    check_form(CompressSettings)
    check_form(StabilitySettings)
    check_words(CompressSettings)
    check_words(StabilitySettings)


@pytest.mark.parametrize(
    ("settings", "name", "value", "remedy"),
    [
        (StabilitySettings, "milp_seconds", 0.0, "greater than 0"),
        (StabilitySettings, "data_images", -1, "from 0 to"),
        (StabilitySettings, "pgd_steps", -1, "from 0 to"),
        (StabilitySettings, "pgd_starts", 0, "from 1 to"),
        (CompressSettings, "merge_tolerance", 0.01, "from 0 to 0.001"),
        (CompressSettings, "largest_coefficient", 0.5, "at least 1"),
    ],
)
def test_ranges(settings: type, name: str, value: Any, remedy: str) -> None:
    assert remedy in refused(settings, name, value)
