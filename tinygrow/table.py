"""Rows of a log as CSV that pandas, DVC and people read alike."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any


def to_csv(names: Sequence[str], rows: Iterable[object]) -> str:
    """Return a table with one column a name, taken from each row's attributes.

    Missing values (None, NaN) are empty cells, truth values 0 and 1, sequences joined by spaces.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(getattr(row, name)) for name in names] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.8g}"
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return value
