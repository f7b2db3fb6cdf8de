"""Cells of the paper's experiment, made up with known answers, as tables and pictures."""

import json
import math
import shutil
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from benchmarks import paper
from benchmarks.paper_cells import Cell, Design, Point, collect, read_cells, write_cells
from benchmarks.paper_picture import AXES, draw
from benchmarks.paper_table import (
    at_passes,
    by_design,
    differences,
    differences_table,
    results_table,
    summarise,
)
from pipeline import paths
from tests.pipeline.tiny import RESNET, read_demo
from tests.report.synthetic import write_run
from tinygrow.data.prepared import SPLITS, DataCard, Split, save_prepared
from tinygrow.errors import TinygrowError

METHODS = ("tiny", "gradmax", "random")
IMAGES = 1000


def block(method: str, seed: int, *, start: float = 0.25, delta: float = 0.25) -> dict[str, Any]:
    """Return the block of a model of two residual blocks: depths 2 and 5, widths 1, 2 to 4, 8."""
    demo = read_demo()["models"]["demo"]
    growth = demo["growth"] | {"method": method, "extensions": 3, "epochs_between": delta}
    return demo | {"seed": seed, "architecture": RESNET | {"start": start}, "growth": growth}


def write_folder(folder: Path, models: dict[str, dict[str, Any]]) -> None:
    tree = read_demo() | {"models": models}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(tree, file)


def finish(folder: Path, name: str, block: dict[str, Any], accuracy: float, **more: Any) -> None:
    """Write what the stages leave of a model that ends at this test accuracy."""
    metrics, scratch = folder / "metrics" / name, block["architecture"]["start"] == 1.0
    written = write_run(
        metrics,
        method="none" if scratch else block["growth"]["method"],
        depths=(2, 5),
        start=(4, 8) if scratch else (1, 2),
        final=(4, 8),
        sweeps=0 if scratch else 3,
        epochs_between=block["growth"]["epochs_between"],
        finetune_epochs=6 if scratch else 4,
        train_images=IMAGES,
    )
    details = folder / paths.growth_details(name)
    details.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(written["growth.json"], details)
    figures = {
        "grow": {"validation_accuracy": accuracy - 10, "seconds": 30.0},
        "finetune": {"validation_accuracy": accuracy - 1, "seconds": 12.5, "epochs": 4} | more,
        "export": {"test_accuracy": accuracy, "parameters": 4567},
        "validate": {"passed": True, "checks": {}},
    }
    for stage, value in figures.items():
        (metrics / f"{stage}.json").write_text(json.dumps(value))


def write_data(folder: Path) -> None:
    card = DataCard(
        name="digits",
        source="made up",
        classes=("a", "b", "c"),
        shape=(3, 8, 8),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        counts={"train": IMAGES, "validation": 1, "test": 1},
    )
    splits = {
        name: Split(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
        for name in SPLITS
    }
    path = folder / paths.prepared("digits")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_prepared(path, card, splits)


ACCURACIES = {"tiny": (60.0, 63.0), "gradmax": (50.0, 52.0), "random": (55.0, 55.5)}


@pytest.fixture
def clones(tmp_path: Path) -> list[Path]:
    """Two clones of one folder, a seed in each; the second lacks one and has not finished one."""
    folders = [tmp_path / f"clone{seed}" / "paper-small" for seed in (0, 1)]
    models = {f"{m}-s4-seed{seed}": block(m, seed) for seed in (0, 1) for m in METHODS}
    models |= {f"scratch-seed{seed}": block("tiny", seed, start=1.0) for seed in (0, 1)}
    for seed, folder in enumerate(folders):
        write_folder(folder, models)
        write_data(folder)
        for method, accuracies in ACCURACIES.items():
            name = f"{method}-s4-seed{seed}"
            finish(folder, name, models[name], accuracies[seed])
    finish(folders[0], "scratch-seed0", models["scratch-seed0"], 70.0, epochs=6)
    (folders[1] / "metrics" / "random-s4-seed1" / "finetune.json").unlink()
    return folders


def design(method: str = "tiny", start: float = 0.25, delta: float = 0.25) -> Design:
    return Design(data="d", network="n", method=method, start=start, epochs_between=delta)


def cell(of: Design, seed: int, accuracy: float, **changes: Any) -> Cell:
    points = tuple(Point(e, 100.0 * e, 2.0 * e, 1e6 * e, 10.0 * e) for e in range(5))
    values: dict[str, Any] = {
        "model": f"{of.method}-{seed}",
        "design": of,
        "seed": seed,
        "growth_accuracy": accuracy - 20,
        "growth_test_accuracy": None,
        "final_accuracy": accuracy - 1,
        "test_accuracy": accuracy,
        "epochs": 4,
        "converged": None,
        "parameters": 5000,
        "growth_seconds": 10.0,
        "finetune_seconds": 30.0,
        "growth_training": 1e6,
        "finetuning": 2e6,
        "growth_own": 1e6,
        "validated": True,
        "machine": "m",
        "grown_at": 2,
        "curve": points,
    }
    return Cell(**(values | changes))


# --- collecting


def test_cells_lie_in_several_folders(clones: Sequence[Path]) -> None:
    cells, missing = collect(clones)
    assert [c.model for c in cells] == [
        "gradmax-s4-seed0",
        "gradmax-s4-seed1",
        "random-s4-seed0",
        "scratch-seed0",
        "tiny-s4-seed0",
        "tiny-s4-seed1",
    ]
    assert missing == [
        "random-s4-seed1: grown, not fine-tuned",
        "scratch-seed1: not begun, or in growth",
    ]
    assert {c.seed for c in cells} == {0, 1}
    assert {c.design.method for c in cells} == {"tiny", "gradmax", "random", "scratch"}


def test_a_cell_s_costs_are_those_of_its_log(clones: Sequence[Path]) -> None:
    (tiny,) = [c for c in collect(clones)[0] if c.model == "tiny-s4-seed0"]
    assert tiny.design.start == 0.25 and tiny.design.epochs_between == 0.25
    # Six extensions of 250 images each; the network costs 9,000 for each unit of width.
    widths = [sum(w) for w in ((2, 2), (2, 4), (3, 4), (3, 6), (4, 6), (4, 8))]
    assert tiny.growth_training == sum(3 * 250 * 9000 * width for width in widths)
    assert tiny.finetuning == 3 * 4 * IMAGES * 9000 * 12
    assert tiny.growth_own is not None and tiny.growth_own > 0
    assert tiny.multiply_adds == tiny.growth_training + tiny.finetuning + tiny.growth_own
    assert tiny.curve[0].accuracy == 10.5 and len(tiny.curve) == 7 + 4
    end = tiny.curve[-1]
    assert (end.epochs, end.images) == (1.5 + 4, 1500 + 4 * IMAGES)
    assert end.multiply_adds == pytest.approx(tiny.multiply_adds)
    # Of an extension 1.5 s of training and 0.885 s of its own; an epoch takes 2, row 0 is none.
    assert end.seconds == pytest.approx(6 * (1.5 + 0.885) + 5 * 2.0)
    assert tiny.curve[tiny.grown_at].epochs == 1.5
    assert (tiny.growth_accuracy, tiny.final_accuracy, tiny.test_accuracy) == (50.0, 59.0, 60.0)


def test_from_scratch_is_told_by_its_start(clones: Sequence[Path]) -> None:
    (scratch,) = [c for c in collect(clones)[0] if c.model == "scratch-seed0"]
    assert (scratch.design.method, scratch.design.start) == ("scratch", 1.0)
    assert scratch.growth_accuracy is None
    assert (scratch.growth_training, scratch.growth_own) == (0.0, 0.0)


def test_what_growth_itself_cost_is_not_made_up(clones: Sequence[Path]) -> None:
    (clones[0] / paths.prepared("digits")).unlink()
    cells = {c.model: c for c in collect(clones)[0]}
    assert cells["tiny-s4-seed0"].growth_own is None
    assert math.isnan(cells["tiny-s4-seed0"].multiply_adds)
    assert cells["tiny-s4-seed0"].growth_training == cells["tiny-s4-seed1"].growth_training > 0
    assert cells["tiny-s4-seed1"].growth_own is not None
    assert cells["scratch-seed0"].growth_own == 0
    table = "\n".join(results_table(list(cells.values())))
    tiny = next(line for line in table.splitlines() if line.startswith("| TINY |"))
    assert "–" in tiny  # noqa: RUF001


def test_a_cell_of_two_folders_counts_once(clones: Sequence[Path]) -> None:
    shutil.copytree(
        clones[0] / "metrics" / "tiny-s4-seed0",
        clones[1] / "metrics" / "tiny-s4-seed0",
    )
    shutil.copytree(clones[0] / "models" / "tiny-s4-seed0", clones[1] / "models" / "tiny-s4-seed0")
    names = [c.model for c in collect(clones)[0]]
    assert names.count("tiny-s4-seed0") == 1


def test_folders_that_mean_different_things_are_refused(clones: Sequence[Path]) -> None:
    write_folder(clones[1], {"tiny-s4-seed0": block("tiny", 7)})
    with pytest.raises(TinygrowError, match="different settings for tiny-s4-seed0"):
        collect(clones)


def test_cells_come_back_from_their_file(clones: Sequence[Path], tmp_path: Path) -> None:
    cells, _ = collect(clones[:1])
    file = tmp_path / "cells.jsonl"
    file.write_text(write_cells(cells))
    assert read_cells(file) == cells
    both, missing = collect([file, clones[1]])
    assert both == collect(clones)[0]
    assert not any("scratch-seed0" in line for line in missing)
    file.write_text("{}\n")
    with pytest.raises(TinygrowError, match="holds no cells"):
        collect([file])


# --- tables


def test_means_and_deviations() -> None:
    cells = [cell(design(), s, a) for s, a in enumerate((60.0, 63.0))]
    row = summarise(cells)[design()]
    test, own = row["test_accuracy"], row["growth_own"]
    assert test is not None and own is not None
    assert (test.mean, test.sd, test.n) == (61.5, statistics.stdev((60.0, 63.0)), 2)
    assert (own.mean, own.sd) == (1e6, 0.0)
    assert row["growth_test_accuracy"] is None
    table = results_table(cells)
    assert table[0].count("|") == table[2].count("|")
    assert table[2].startswith("| TINY | 1/4 | 0.25 | 2 | 41.50 ± 2.12 | 60.50 ± 2.12 | 61.50")
    assert "| 10 s | 30 s | 1.00 | 1.00 | 2.00 | 4.00 |" in table[2]


def test_designs_come_in_one_order() -> None:
    mixed = [
        design("scratch", 1.0, 0.0),
        design("random"),
        design("tiny", 1 / 64),
        design("own"),
        design("tiny"),
        design("gradmax", 0.25, 1.0),
    ]
    ordered = list(by_design(cell(d, 0, 50.0) for d in mixed))
    assert [(d.method, d.start, d.epochs_between) for d in ordered] == [
        ("tiny", 0.25, 0.25),
        ("random", 0.25, 0.25),
        ("own", 0.25, 0.25),
        ("gradmax", 0.25, 1.0),
        ("tiny", 1 / 64, 0.25),
        ("scratch", 1.0, 0.0),
    ]


def test_differences_are_within_a_start_and_with_scratch() -> None:
    cells = [
        cell(d, s, a + s)
        for d, a in (
            (design(), 60.0),
            (design("gradmax"), 50.0),
            (design("gradmax", 1 / 64), 40.0),
            (design("scratch", 1.0, 0.0), 70.0),
        )
        for s in (0, 1)
    ]
    found = {(d.one.method, d.one.start, d.other.method): d for d in differences(cells)}
    assert set(found) == {
        ("tiny", 0.25, "gradmax"),
        ("tiny", 0.25, "scratch"),
        ("gradmax", 0.25, "scratch"),
        ("gradmax", 1 / 64, "scratch"),
    }
    first = found["tiny", 0.25, "gradmax"]
    half = 4.302652729911275 * math.sqrt(0.5)  # t of two degrees of freedom, 97.5 %
    assert first.test == (10.0, pytest.approx(half))
    assert (first.seconds, first.multiply_adds, first.seeds) == (1.0, 1.0, (2, 2))
    text = "\n".join(differences_table(cells))
    assert f"| TINY less GradMax | 1/4 | 0.25 | 2, 2 | **+10.00 ± {half:.2f}**" in text
    assert "n = 2 says little" in text


def test_a_single_seed_has_no_interval() -> None:
    cells = [cell(design(), 0, 60.0), cell(design("random"), 0, 61.0)]
    (line,) = [text for text in differences_table(cells) if text.startswith("| TINY")]
    assert "-1.00 |" in line and "±" not in line and "**" not in line
    assert "no conclusion" in "\n".join(differences_table(cells))
    assert differences_table(cells[:1]) == ["There is nothing to compare yet."]


def test_accuracy_at_as_many_image_passes() -> None:
    some = cell(design(), 0, 60.0)
    assert at_passes(some, 250.0) == 25.0
    assert at_passes(some, 400.0) == at_passes(some, 403.0) == 40.0
    assert at_passes(some, 500.0) is None
    longer = cell(design("scratch", 1.0, 0.0), 0, 60.0)
    (one,) = differences([cell(design(), 0, 60.0, curve=some.curve[:3]), longer])
    assert one.equal == (59.0 - 20.0, None)


def test_a_star_says_what_was_trained_on() -> None:
    text = results_table([cell(design(), 0, 60.0, converged=False, epochs=500)])
    assert "| 500* |" in text[2] and text[-1].startswith("\\* Not converged")
    assert "*" not in "".join(results_table([cell(design(), 0, 60.0, converged=True)]))


# --- files


def test_files_hold_tables_and_pictures(clones: Sequence[Path], tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    arguments = [str(out), *map(str, clones)]
    assert paper.main(arguments) == 0
    names = {file.name for file in out.iterdir()}
    stems = {f"digits-resnet-w4-{axis.name}.{end}" for axis in AXES for end in ("svg", "png")}
    assert names == {"results.md", "results.json", "cells.jsonl"} | stems
    text = (out / "results.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert str(tmp_path) not in text and "CLONE/clone0/paper-small" in text
    assert "| TINY | 1/4 | 0.25 | 2 |" in text and "| random | 1/4 | 0.25 | 1 |" in text
    assert "random-s4-seed1: grown, not fine-tuned" in text
    assert "scratch-seed1: not begun, or in growth" in text
    value = json.loads((out / "results.json").read_text())
    assert {c["model"]: c["test_accuracy"] for c in value["cells"]}["tiny-s4-seed1"] == 63.0
    assert len(value["missing"]) == 2
    before = {stem: (out / stem).read_bytes() for stem in stems if stem.endswith("svg")}
    assert paper.main([str(out), str(out / "cells.jsonl"), *map(str, clones)]) == 0
    assert before == {stem: (out / stem).read_bytes() for stem in before}


def test_nothing_finished_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "f", {"tiny-s4-seed0": block("tiny", 0)})
    assert paper.main([str(tmp_path / "out"), str(tmp_path / "f")]) == 1
    assert "no cell is finished: tiny-s4-seed0: not begun" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_picture_has_a_panel_for_each_start_and_time_between() -> None:
    cells = [
        cell(d, s, 60.0)
        for d in (design(), design("random"), design(start=1 / 64), design("scratch", 1.0, 0.0))
        for s in (0, 1)
    ]
    svg, png = draw(cells, AXES[2], "d, n")
    words = ["".join(e.itertext()) for e in ET.fromstring(svg).iter() if e.tag.endswith("text")]
    assert "from 1/4 of the inner widths, Δt = 0.25" in words
    assert "from 1/64 of the inner widths, Δt = 0.25" in words
    assert {"TINY (n = 2)", "random (n = 2)", "from scratch (n = 2)"} <= set(words)
    assert any("10⁶ multiply-adds" in word for word in words)
    assert png.startswith(b"\x89PNG")


def test_cells_without_a_cost_are_left_out_of_its_picture() -> None:
    known = cell(design(), 0, 60.0)
    curve = tuple(Point(p.epochs, p.images, p.seconds, math.nan, p.accuracy) for p in known.curve)
    unknown = cell(design("random"), 0, 60.0, growth_own=None, curve=curve)
    svg, _ = draw([known, unknown], AXES[2], "d")
    assert "TINY (n = 1)" in svg and "random" not in svg
    assert "random (n = 1)" in draw([known, unknown], AXES[0], "d")[0]
