"""What the tests of settings have in common: a bad value is refused by name."""

from dataclasses import FrozenInstanceError, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from tinygrow.errors import SettingError


def refused(settings: type, name: str, value: Any, **others: Any) -> str:
    """Return the message of the refusal: one line that begins with the setting's name."""
    with pytest.raises(SettingError) as caught:
        settings(**(others | {name: value}))
    message = str(caught.value)
    assert message.startswith(f"{name} is "), message
    assert "\n" not in message
    return message


def check_words(settings: type, **others: Any) -> None:
    """Every setting of words takes each word of its type and refuses all else, naming them."""
    hints = get_type_hints(settings)
    for name, hint in hints.items():
        if get_origin(hint) is not Literal:
            continue
        words = get_args(hint)
        for word in words:
            assert getattr(settings(**(others | {name: word})), name) == word
        assert refused(settings, name, "nonsense", **others) == (
            f"{name} is 'nonsense'; it must be one of {', '.join(words)}"
        )


def check_form(settings: type, **others: Any) -> None:
    """Settings are frozen and given by name."""
    value = settings(**others)
    first = fields(settings)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(value, first, getattr(value, first))
    with pytest.raises(TypeError):
        settings(getattr(value, first))
