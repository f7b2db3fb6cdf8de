import math

import pytest

from tinygrow.errors import SettingError, TinygrowError
from tinygrow.settings.check import above, at_least, between, one_of, require


def test_a_setting_error_is_an_expected_failure() -> None:
    assert issubclass(SettingError, TinygrowError)


def test_require_names_setting_value_and_remedy() -> None:
    require(True, "rate", 3, "unused")
    with pytest.raises(SettingError, match=r"^rate is 'x'; make it y$"):
        require(False, "rate", "x", "make it y")


@pytest.mark.parametrize(
    ("check", "limits", "good", "bad", "remedy"),
    [
        (at_least, (2,), (2, 2.0, 10), (1, 1.999, -3), "at least 2"),
        (above, (0,), (1e-300, 4), (0, -1e-300), "greater than 0"),
        (between, (1, 3), (1, 2.5, 3), (0.999, 3.001), "from 1 to 3"),
        (one_of, (("a", "b"),), ("a", "b"), ("c", "", None), "one of a, b"),
    ],
)
def test_checks(check, limits, good, bad, remedy) -> None:  # type: ignore[no-untyped-def]
    for value in good:
        check("rate", value, *limits)
    for value in bad:
        with pytest.raises(SettingError, match=rf"^rate is {value!r}; it must be .*{remedy}$"):
            check("rate", value, *limits)


@pytest.mark.parametrize(("check", "limits"), [(at_least, (0,)), (above, (0,)), (between, (0, 1))])
def test_not_a_number_is_in_no_range(check, limits) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SettingError, match="rate is nan"):
        check("rate", math.nan, *limits)
