from typing import Any

import pytest

from tests.settings.refusal import check_form, check_words, refused
from tinygrow.settings.products import (
    Budget,
    ExportSettings,
    QuantizationSettings,
    ValidateSettings,
)

BUDGET = {
    "relative_tolerance": 0.1,
    "min_agreement": 0.9,
    "max_accuracy_loss": 1.0,
    "max_ece_increase": 0.1,
}


def test_form() -> None:
    check_form(ExportSettings)
    check_form(ValidateSettings)
    check_form(QuantizationSettings)
    check_form(Budget, **BUDGET)
    check_words(QuantizationSettings)


@pytest.mark.parametrize(
    ("settings", "name", "value", "remedy"),
    [
        (ExportSettings, "opset", 17, "from 18 to 26"),
        (ExportSettings, "opset", 27, "from 18 to 26"),
        (ExportSettings, "precisions", ("fp16",), "it must name fp32"),
        (ExportSettings, "precisions", ("fp32", "fp32"), "fp32, fp16, int8 at most once"),
        (QuantizationSettings, "calibration_images", 0, "from 1 to"),
        (QuantizationSettings, "percentile", 50.0, "greater than 50"),
        (QuantizationSettings, "percentile", 100.1, "at most 100"),
        (QuantizationSettings, "min_agreement", 1.1, "from 0 to 1"),
        (QuantizationSettings, "max_accuracy_loss", -0.1, "at least 0"),
        (ValidateSettings, "required", ("fp8",), "fp32, fp16, int8 at most once"),
        (ValidateSettings, "batch_sizes", (), "[]; it must name at least one size"),
        (ValidateSettings, "batch_sizes", (4, 0), "[4, 0]; it must name at least one size"),
        (ValidateSettings, "batch_sizes", (65_537,), "each from 1 to 65536"),
    ],
)
def test_ranges(settings: type, name: str, value: Any, remedy: str) -> None:
    assert remedy in refused(settings, name, value)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("relative_tolerance", 0.0, "greater than 0"),
        ("min_agreement", -0.1, "from 0 to 1"),
        ("min_agreement", 1.1, "from 0 to 1"),
        ("max_accuracy_loss", -0.1, "at least 0"),
        ("max_ece_increase", -0.1, "at least 0"),
    ],
)
def test_ranges_of_a_budget(name: str, value: float, remedy: str) -> None:
    assert remedy in refused(Budget, name, value, **BUDGET)


def test_each_precision_has_its_budget() -> None:
    budgets = [ValidateSettings().budget(p) for p in ("fp32", "fp16", "int8")]
    assert [b.min_agreement for b in budgets] == [0.9999, 0.999, 0.985]
    assert [b.max_accuracy_loss for b in budgets] == [0.02, 0.1, 0.5]


def test_the_limits_themselves_are_allowed() -> None:
    assert [ExportSettings(opset=v).opset for v in (18, 26)] == [18, 26]
    assert [Budget(**BUDGET | {"min_agreement": v}).min_agreement for v in (0.0, 1.0)] == [0, 1]
    assert QuantizationSettings(percentile=100.0).percentile == 100
    assert ValidateSettings(batch_sizes=(1, 65_536)).batch_sizes == (1, 65_536)
