"""A certificate, read with distrust: every field is looked at before anything is done with it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrow.errors import TinygrowError

FORMAT = 1
MAX_BYTES = 256 * 2**20
MAX_UNITS = 2_000_000
KINDS = ("inactive", "active", "zero", "constant")
METHODS = ("interval", "exact", "crown", "milp")
ACTIONS = ("removed", "merged", "constant", "folded", "kept")


class Refusal(Exception):
    """What the certificate says is not so; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What the certificate claims of one unit of the network before.

    Attributes:
        layer: module path of the layer that computes its pre-activation.
        index: channel or row.
        kind: `inactive` (never above 0), `active` (never below), `zero`, `constant`.
        bound: claimed bound of the pre-activation: upper if inactive, lower if active.
        method: what the claim rests on.
        margin: claimed distance of the bound from 0.
        slack: claimed drift of float32 from real arithmetic.
        action: what became of it.
    """

    layer: str
    index: int
    kind: str
    bound: float
    method: str
    margin: float
    slack: float
    action: str

    @property
    def name(self) -> str:
        """Return layer and index for messages."""
        return f"{self.layer}[{self.index}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate whose form is right; nothing that it says has been checked.

    Attributes:
        model: name.
        domain: type, shape, scale and shift of the input.
        before: file hash, initialisers' hashes and counts of the network before.
        after: initialisers' hashes and counts of the product.
        units: one entry a unit.
        steps: the rewrites, in order.
        crown: slopes and lines behind proofs of method `crown`; empty: there are none.
    """

    model: str
    domain: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    units: tuple[Unit, ...]
    steps: tuple[Mapping[str, Any], ...]
    crown: Mapping[str, Any]


def read_certificate(path: Path) -> Certificate:
    """Read a certificate.

    Raises:
        TinygrowError: the file is missing, too large or not JSON.
        Refusal: it is JSON, but not a certificate of this format.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TinygrowError(
                f"{path} has {path.stat().st_size} bytes, above the {MAX_BYTES} that a certificate"
                " may have; make it again with the stage compress"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TinygrowError(
            f"{path} cannot be read ({_line(error)}); run the stage compress first"
        ) from error
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TinygrowError(
            f"{path} is not a certificate: {_line(error)}; make it again with the stage compress"
        ) from error
    return _certificate(value)


def _certificate(value: Any) -> Certificate:
    whole = _mapping(value, "the certificate")
    if whole.get("format") != FORMAT:
        raise Refusal(f"its format is {whole.get('format')!r}; this checker reads {FORMAT}")
    units = tuple(
        _unit(_mapping(u, "a unit")) for u in _sequence(whole.get("units"), "units", MAX_UNITS)
    )
    seen: set[tuple[str, int, str]] = set()
    for unit in units:
        if (key := (unit.layer, unit.index, unit.kind)) in seen:
            raise Refusal(f"{unit.name} is listed twice as {unit.kind}")
        seen.add(key)
    steps = _sequence(whole.get("steps"), "steps", MAX_UNITS)
    return Certificate(
        model=_text(whole.get("model"), "model"),
        domain=_mapping(whole.get("domain"), "domain"),
        before=_mapping(whole.get("before"), "before"),
        after=_mapping(whole.get("after"), "after"),
        units=units,
        steps=tuple(_mapping(step, "a step") for step in steps),
        crown=_mapping(whole.get("crown", {}), "crown"),
    )


def _unit(value: Mapping[str, Any]) -> Unit:
    layer = _text(value.get("layer"), "layer of a unit")
    index = whole_number(value.get("index"), f"index of a unit of {layer}")
    here = f"{layer}[{index}]"
    unit = Unit(
        layer=layer,
        index=index,
        kind=_one_of(value.get("kind"), KINDS, f"kind of {here}"),
        bound=number(value.get("bound"), f"bound of {here}"),
        method=_one_of(value.get("method"), METHODS, f"method of {here}"),
        margin=number(value.get("margin"), f"margin of {here}"),
        slack=number(value.get("slack"), f"slack of {here}"),
        action=_one_of(value.get("action"), ACTIONS, f"action of {here}"),
    )
    if unit.margin < 0 or unit.slack < 0:
        raise Refusal(f"margin and slack of {here} are {unit.margin} and {unit.slack}: negative")
    return unit


def number(value: Any, name: str) -> float:
    """Return a finite number, or refuse."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal(f"{name} is {_short(value)}, not a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise Refusal(f"{name} is {_short(value)}, not a finite number")
    return result


def whole_number(value: Any, name: str) -> int:
    """Return a whole number from 0 to 2^31, or refuse."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise Refusal(f"{name} is {_short(value)}, not a whole number from 0")
    return value


def whole_numbers(value: Any, name: str) -> tuple[int, ...]:
    """Return different whole numbers, or refuse."""
    numbers = tuple(whole_number(v, name) for v in _sequence(value, name, MAX_UNITS))
    if len(set(numbers)) < len(numbers):
        raise Refusal(f"{name} names a unit twice")
    return numbers


def names(value: Any, name: str) -> tuple[str, ...]:
    """Return names from one text or a list of texts, or refuse."""
    if isinstance(value, str):
        return (value,)
    return tuple(_text(v, name) for v in _sequence(value, name, MAX_UNITS))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Refusal(f"{name} is {_short(value)}, not a text")
    return value


def _one_of(value: Any, allowed: tuple[str, ...], name: str) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise Refusal(f"{name} is {_short(value)}; it must be one of {', '.join(allowed)}")
    return value


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(f"{name} is {_short(value)}, not an object")
    return value


def _sequence(value: Any, name: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise Refusal(f"{name} is {_short(value)}, not a list")
    if len(value) > most:
        raise Refusal(f"{name} has {len(value)} entries; at most {most} are read")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
