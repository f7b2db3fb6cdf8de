"""Range checks that name the setting, its value and what would be right."""

from typing import Any

from tinygrow.errors import SettingError

MAX_SEED = 2**32 - 1
# Far beyond any use: they turn a slip of the keyboard into a message before work begins.
MAX_COUNT = 1_000_000
MAX_BATCH = 65_536
MAX_SIDE = 4096


def require(holds: bool, name: str, value: Any, remedy: str) -> None:
    """Raise a `SettingError` that names the setting, its value and the remedy unless it holds."""
    if not holds:
        raise SettingError(f"{name} is {value!r}; {remedy}")


def at_least(name: str, value: float, low: float) -> None:
    """Require `value >= low`."""
    require(value >= low, name, value, f"it must be at least {low}")


def above(name: str, value: float, low: float) -> None:
    """Require `value > low`."""
    require(value > low, name, value, f"it must be greater than {low}")


def between(name: str, value: float, low: float, high: float) -> None:
    """Require `low <= value <= high`."""
    require(low <= value <= high, name, value, f"it must be from {low} to {high}")


def one_of(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Require that `value` is one of `choices`."""
    require(value in choices, name, value, f"it must be one of {', '.join(map(str, choices))}")
