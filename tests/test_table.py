import csv
import io
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrow.table import to_csv


@dataclass(frozen=True)
class Row:
    a: Any
    b: Any = None


def cells(*values: Any) -> list[str]:
    table = list(csv.reader(io.StringIO(to_csv(["a"], [Row(v) for v in values]))))
    assert table[0] == ["a"]
    return [row[0] if row else "" for row in table[1:]]


def test_columns_follow_the_names() -> None:
    assert to_csv(["b", "a"], [Row(1, 2), Row(3, 4)]) == "b,a\n2,1\n4,3\n"


def test_no_rows_leave_the_heading() -> None:
    assert to_csv(["a", "b"], []) == "a,b\n"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (float("nan"), ""),
        (True, "1"),
        (False, "0"),
        (0, "0"),
        (12_773_156, "12773156"),
        (0.0, "0"),
        (0.1, "0.1"),
        (2.0**-27, "7.4505806e-09"),
        (float("inf"), "inf"),
        ((1, 2, 30), "1 2 30"),
        ([1, 2], "1 2"),
        ((), ""),
        ("stages.0.block0.conv1", "stages.0.block0.conv1"),
        ('a, "b"\nc', 'a, "b"\nc'),
    ],
)
def test_cells(value: Any, cell: str) -> None:
    assert cells(value) == [cell]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_eight_digits(value: float) -> None:
    assert float(cells(value)[0]) == pytest.approx(value, rel=1e-7, abs=0)


def test_an_unknown_column_is_an_error() -> None:
    with pytest.raises(AttributeError):
        to_csv(["c"], [Row(1)])
