import copy
from typing import Any

from tests.report.product import CERTIFICATE
from tinygrow.report.compression import layer_rows, summary, why_no_more


def changed(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(CERTIFICATE) | changes


def test_what_was_removed_is_one_sentence() -> None:
    assert summary(CERTIFICATE) == (
        "Compression removed 2 units, and the network computes the same for every possible image:"
        " 4,919 to 4,411 parameters, 864,123 to 801,234 multiply-adds."
    )
    nothing = changed(counts={"proved": 0, "refuted": 9, "unknown": 1, "removed": 0})
    assert summary(nothing).startswith("Compression removed 0 units: nothing in this network")


def test_a_layer_is_a_row() -> None:
    (row,) = layer_rows(CERTIFICATE)
    assert (row.name, row.units, row.inactive, row.refuted) == ("stages.0.block0.conv1", 8, 2, 4)


def test_why_nothing_more_names_what_would_help() -> None:
    refuted, unknown, kept, note = why_no_more(CERTIFICATE)
    assert refuted.startswith("4 units were seen on both sides of zero")
    assert (
        unknown.startswith("1 units are unknown") and "compress.stability.bounds: crown" in unknown
    )
    assert kept.startswith("1 units are proved stable and stay")
    assert note == "stem.0: 1 channels <stay>"
    solver = changed(settings={"stability": {"bounds": "crown", "milp": "isa"}})
    assert "more time (compress.stability.milp_seconds)" in why_no_more(solver)[1]
    assert "crown" not in why_no_more(solver)[1]


def test_many_notes_are_cut() -> None:
    lines = why_no_more(changed(notes=[f"note {i}" for i in range(40)]))
    assert lines[-1] == "and 28 notes more, in certificate.json"
