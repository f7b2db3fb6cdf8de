from typing import Any

import pytest

from tests.settings.refusal import check_form, refused
from tinygrow.settings.products import ExportSettings, ValidateSettings


def test_form() -> None:
    check_form(ExportSettings)
    check_form(ValidateSettings)


@pytest.mark.parametrize(
    ("settings", "name", "value", "remedy"),
    [
        (ExportSettings, "opset", 17, "from 18 to 26"),
        (ExportSettings, "opset", 27, "from 18 to 26"),
        (ValidateSettings, "relative_tolerance", 0.0, "greater than 0"),
        (ValidateSettings, "min_agreement", -0.1, "from 0 to 1"),
        (ValidateSettings, "min_agreement", 1.1, "from 0 to 1"),
        (ValidateSettings, "max_accuracy_difference", -0.1, "at least 0"),
        (ValidateSettings, "batch_sizes", (), "[]; it must name at least one size"),
        (ValidateSettings, "batch_sizes", (4, 0), "[4, 0]; it must name at least one size"),
        (ValidateSettings, "batch_sizes", (65_537,), "each from 1 to 65536"),
    ],
)
def test_ranges(settings: type, name: str, value: Any, remedy: str) -> None:
    assert remedy in refused(settings, name, value)


def test_the_limits_themselves_are_allowed() -> None:
    assert [ExportSettings(opset=v).opset for v in (18, 26)] == [18, 26]
    assert [ValidateSettings(min_agreement=v).min_agreement for v in (0.0, 1.0)] == [0.0, 1.0]
    assert ValidateSettings(batch_sizes=(1, 65_536)).batch_sizes == (1, 65_536)
