"""The benchmark of the search runs small, judges, and tells when the solver is missing."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import compress, stability_paper
from benchmarks.stability_networks import Data, accuracy, given, train, untrained
from tinygrow.stability.solver import has_solver


def _data() -> Data:
    """Return two classes: bright on the left, or on the right."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2048) % 2
    images = torch.randint(0, 60, (2048, 1, 4, 4), dtype=torch.uint8, generator=generator)
    images[labels == 0, :, :, :2] += 150
    images[labels == 1, :, :, 2:] += 150
    return given("halves", {"train": (images, labels), "test": (images[:64], labels[:64])})


def test_without_the_solver_it_skips_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compress, "has_solver", lambda: False)
    assert compress.main(["--base-width", "1", "--repeats", "1", "--threads", "1"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["holds"] == {"interval": True}
    assert result["skipped"].startswith("SKIPPED")


def test_a_target_that_is_missed_is_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "has_solver", lambda: False)
    monkeypatch.setattr(compress, "MOST_INTERVAL_SECONDS", 0.0)
    assert compress.main(["--base-width", "1", "--repeats", "1", "--threads", "1"]) == 1


@pytest.mark.skipif(not has_solver(), reason="highspy, the solver HiGHS, is not installed")
def test_both_sides_are_measured_on_one_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compress, "digits", _data)
    few = ["--base-width", "1", "--repeats", "1", "--threads", "1"]
    compress.main([*few, "--width", "6", "--epochs", "2", "--l1", "0", "--each", "1"])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["networks"]
    assert row["single"]["programs"] > 0 and row["single"]["finished"]
    assert row["proved_only_by_single"] == 0
    assert row["ladder"]["proved"] >= row["single"]["stable"]


def test_training_learns_and_l1_shrinks() -> None:
    data = _data()
    sums = []
    for l1 in (0.0, 0.01):
        network = untrained(data, (8, 8), 0)
        train(network, data, recipe="adam", l1=l1, seed=0, epochs=20)
        assert accuracy(network, data) > 95
        sums.append(sum(float(p.abs().sum()) for p in network.parameters()))
    assert sums[1] < 0.8 * sums[0]


def test_a_cell_is_run_once_and_goes_into_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cell = stability_paper.Cell("digits", (6, 6), "adam", 0.02)
    monkeypatch.setattr(stability_paper, "cells", lambda: [cell])
    monkeypatch.setattr(stability_paper, "digits", _data)
    runs = tmp_path / "runs"
    assert stability_paper.main([str(runs), "--seconds", "2"]) == 0
    (path,) = runs.iterdir()
    result = json.loads(path.read_text())
    assert result["bounds"]["proved"] > 0
    assert result["removed"]["relative_difference"] < 1e-12
    written = path.stat().st_mtime_ns
    stability_paper.main([str(runs)])
    assert path.stat().st_mtime_ns == written
    stability_paper.main([str(runs), "--table", str(tmp_path)])
    assert cell.name in (tmp_path / "table.md").read_text()
