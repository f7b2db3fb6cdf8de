import math

import pytest

from tinygrow.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(12773156, "12,773,156"), (0, "0"), (None, "–"), (math.nan, "–")],  # noqa: RUF001
)
def test_count(value: float | None, text: str) -> None:
    assert numbers.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(950, "950 bytes"), (21345, "21.3 kB"), (51_092_624, "51.1 MB"), (2.5e9, "2.50 GB")],
)
def test_size(value: float, text: str) -> None:
    assert numbers.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0 s"),
        (0.04, "0.04 s"),
        (0.996, "1.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_duration_never_shows_sixty_of_anything(value: float, text: str) -> None:
    assert numbers.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.41249, "0.412 ms"), (3.25, "3.25 ms"), (1234.5, "1,234 ms"), (0, "0 ms")]
)
def test_milliseconds(value: float, text: str) -> None:
    assert numbers.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (1e-8, "1e-08"), (0.25, "0.25"), ([1, 2.5], "[1, 2.5]"), ("a", "a"), (7, "7")],
)
def test_plain(value: object, text: str) -> None:
    assert numbers.plain(value) == text


def test_percent_has_two_decimals() -> None:
    assert numbers.percent(98.333) == "98.33 %"
