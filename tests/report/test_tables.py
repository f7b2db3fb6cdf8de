import pytest

from tests.report.product import FIGURES, card
from tinygrow.errors import TinygrowError
from tinygrow.report import tables
from tinygrow.report.history import History


def test_validation_and_test_accuracy_are_told_apart() -> None:
    figures = [FIGURES[s] for s in ("grow", "finetune", "export", "validate")]
    rows = tables.accuracy_rows(*figures, card())
    assert [(r.images, r.accuracy) for r in rows] == [
        ("111 validation images", "81.25 %"),
        ("111 validation images", "95.50 %"),
        ("24 test images", "91.67 %"),
        ("24 test images", "91.66 %"),
    ]


def test_failed_checks_come_first_and_status_is_read_in_any_case() -> None:
    failed = {"status": "failed", "numbers": {}, "reason": "no"}
    checks = {**FIGURES["validate"]["checks"], "last": failed}
    rows = tables.check_rows({"checks": checks})
    assert [(r.name, r.status) for r in rows] == [
        ("last", "failed"),
        ("parity", "passed"),
        ("accuracy", "passed"),
        ("provider_cuda", "skipped"),
    ]
    assert rows[1].numbers == (("relative_difference", "1.25e-07"), ("limit", "0.0001"))


@pytest.mark.parametrize(
    ("validate", "message"),
    [
        ({}, "not complete"),
        ({"checks": {"a": {"numbers": {}, "reason": ""}}}, "'status'"),
        ({"checks": {"a": {"status": "maybe", "numbers": {}, "reason": ""}}}, "'maybe'"),
    ],
)
def test_an_incomplete_gate_is_refused(validate: dict, message: str) -> None:
    with pytest.raises(TinygrowError, match=message):
        tables.check_rows(validate)


def test_time_shares_add_up(history: History) -> None:
    shares = tables.time_shares(history, {"seconds": 20.0})
    assert sum(s.percent for s in shares) == pytest.approx(100)
    assert {s.name: s.seconds for s in shares} == pytest.approx(
        {
            "Statistics": 8.0,
            "Solving": 4.0,
            "Search": 2.0,
            "Surgery": 0.16,
            "Training in growth": 24.0,
            "Fine-tuning": 20.0,
        }
    )


def test_widths_go_from_seed_to_final(history: History) -> None:
    assert tables.width_rows(history) == [
        ("depth 2", 4, 16),
        ("depth 4", 4, 16),
        ("depth 7", 8, 32),
        ("depth 9", 8, 32),
    ]


def test_settings_become_dotted_names() -> None:
    settings = {"a": 1, "b": {"c": {"d": 1e-8}, "e": [2, 2]}, "f": False}
    assert tables.setting_rows(settings) == [
        ("a", "1"),
        ("b.c.d", "1e-08"),
        ("b.e", "[2, 2]"),
        ("f", "false"),
    ]


def test_headline_does_not_hide_a_failed_gate() -> None:
    export = FIGURES["export"]
    line = tables.headline(export, card(), {"passed": False}, {"architecture": {"kind": "mlp"}})
    assert line.startswith("A perceptron of 4,919 parameters")
    assert "did NOT pass the gate" in line
