"""What compression proved, refuted, left open and took out, in words and as a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinygrow.report import numbers

_SHOWN = 12  # notes


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One layer in front of ReLUs, in numbers of its units.

    Attributes:
        name: its module path.
        units: all of them.
        inactive: proved to be never above zero.
        active: proved to be never below.
        refuted: seen on both sides of zero.
        unknown: on one side as far as is known, without a proof.
        removed: by whatever step.
    """

    name: str
    units: int
    inactive: int
    active: int
    refuted: int
    unknown: int
    removed: int


def layer_rows(certificate: Mapping[str, Any]) -> list[LayerRow]:
    """Return one row a layer, in the order in which they run."""
    return [
        LayerRow(
            name=entry["layer"],
            **{key: entry[key] for key in LayerRow.__slots__ if key != "name"},
        )
        for entry in certificate["layers"]
    ]


def summary(certificate: Mapping[str, Any]) -> str:
    """Return the sentence that says what compression did."""
    before, after = certificate["before"], certificate["after"]
    removed = certificate["counts"]["removed"]
    if not removed:
        return (
            "Compression removed 0 units: nothing in this network provably never matters. That is"
            " usual for networks whose training does not make units stable."
        )
    return (
        f"Compression removed {numbers.count(removed)} units, and the network computes the same"
        f" for every possible image: {numbers.count(before['parameters'])} to"
        f" {numbers.count(after['parameters'])} parameters,"
        f" {numbers.count(before['multiply_adds'])} to"
        f" {numbers.count(after['multiply_adds'])} multiply-adds."
    )


def why_no_more(certificate: Mapping[str, Any]) -> list[str]:
    """Return what stands in the way of removing more."""
    rows = layer_rows(certificate)
    stability = certificate["settings"]["stability"]
    lines = []
    refuted = sum(row.refuted for row in rows)
    unknown = sum(row.unknown for row in rows)
    kept = sum(unit["action"] == "kept" for unit in certificate["units"])
    if refuted:
        lines.append(
            f"{numbers.count(refuted)} units were seen on both sides of zero: they are not stable,"
            " and no proof will come."
        )
    if unknown:
        rest = "a solver (compress.stability.milp: isa)"
        if stability["bounds"] == "interval":
            rest = f"tighter bounds (compress.stability.bounds: crown) or {rest}"
        tried = "interval bounds" if stability["bounds"] == "interval" else "the bounds"
        if stability["milp"] != "off":
            tried, rest = f"{tried} and the solver", "more time (compress.stability.milp_seconds)"
        lines.append(
            f"{numbers.count(unknown)} units are unknown, and stay: {tried} did not decide them."
            f" What may: {rest}."
        )
    if kept:
        lines.append(
            f"{numbers.count(kept)} units are proved stable and stay: an active unit goes only"
            " where others can stand for it."
        )
    notes = list(certificate["notes"])
    if len(notes) > _SHOWN:
        notes[_SHOWN:] = [f"and {len(notes) - _SHOWN} notes more, in certificate.json"]
    return lines + notes
