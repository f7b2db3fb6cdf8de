"""Accuracy against compression, on a handful of made-up images."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import compression
from benchmarks.compression_report import collect, markdown
from tinygrow.errors import TinygrowError
from tinygrow.settings.network import MLPSettings

SMALL = compression.Task(
    train_images=60,
    validation_images=20,
    test_images=20,
    network=MLPSettings(hidden=(8, 6), start=0.5),
    penalty="l1_weights",
    strengths=(0.0, 30.0),
    epochs=2,
    crop_padding=0,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    stored = {
        name: (
            torch.randint(256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8),
            torch.arange(count) % 3,
        )
        for name, count in (("train", 80), ("test", 20))
    }
    torch.save(stored, tmp_path / "images.pt")
    return tmp_path / "images.pt"


def test_cells_are_made_once_and_shown(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So strong a penalty makes all dense weights zero: the network becomes a constant."""
    monkeypatch.setitem(compression.TASKS, "digits-mlp", SMALL)
    cells, shown = tmp_path / "cells" / "mlp", tmp_path / "shown"
    words = [str(cells), "--task", "digits-mlp", "--data", str(data), "--seeds", "0", "1"]
    assert compression.main(words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert compression.main(words) == 0
    assert capsys.readouterr().out == ""

    none, strong = (json.loads((cells / f"{s}-s0.json").read_text()) for s in ("0", "30"))
    assert none["parameters_after"] == none["parameters"] == 16 * 8 + 8 + 8 * 6 + 6 + 6 * 3 + 3
    assert strong["parameters_after"] < strong["parameters"] / 4
    assert strong["different_answers"] == none["different_answers"] == 0
    assert strong["test_accuracy_after"] == strong["test_accuracy"]

    assert compression.main([str(cells.parent), "--picture", str(shown)]) == 0
    assert "| 30 | 2 |" in capsys.readouterr().out
    assert (shown / "compression.png").stat().st_size > 1000
    setup, found = collect(cells)["digits-mlp"]
    assert "| 0 | 2 |" in markdown(setup, found)

    changed = json.loads((cells / "setup.json").read_text()) | {"epochs": 3}
    (cells / "setup.json").write_text(json.dumps(changed))
    assert compression.main(words) == 1
    assert "take another folder" in capsys.readouterr().err


def test_no_cells_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TinygrowError, match="no finished cell"):
        collect(tmp_path)
