"""Numbers as people read them; every page and table uses these."""

import math

ABSENT = "–"  # noqa: RUF001


def count(value: float | None) -> str:
    """Return a whole number with thousands set apart: 12,773,156."""
    return ABSENT if _missing(value) else f"{round(value):,}"  # type: ignore[arg-type]


def percent(value: float | None) -> str:
    """Return a percentage with two decimals: 98.33 %."""
    return ABSENT if _missing(value) else f"{value:.2f} %"


def size(value: float | None) -> str:
    """Return bytes in the unit that suits them: 51.1 MB (a MB is a million bytes)."""
    if _missing(value):
        return ABSENT
    amount = float(value)  # type: ignore[arg-type]
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= factor:
            return f"{_three(amount / factor)} {unit}"
    return f"{amount:.0f} bytes"


def milliseconds(value: float | None) -> str:
    """Return a time of a few milliseconds with three digits: 0.412 ms."""
    return ABSENT if _missing(value) else f"{_three(float(value))} ms"  # type: ignore[arg-type]


def duration(seconds: float | None) -> str:
    """Return a duration: 0.82 s, 4.1 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if _missing(seconds):
        return ABSENT
    amount = float(seconds)  # type: ignore[arg-type]
    if 0 < amount < 0.995:
        return f"{amount:.2f} s"
    if amount < 9.95:
        return f"{amount:.1f} s"
    whole = round(amount)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plain(value: object) -> str:
    """Return any value of a settings file or a check: short floats, true and false, lists."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain(v) for v in value) + "]"
    return "null" if value is None else str(value)


def _three(value: float) -> str:
    """Return three significant digits without an exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)
