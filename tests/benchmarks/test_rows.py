import json
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import rows, runs
from benchmarks.rows_picture import mean_curve
from tests.report.synthetic import write_run
from tinygrow.errors import TinygrowError

ACCURACIES = {"tiny": (97.5, 98.25, 98.0), "random": (96.0, 97.0, 96.25), "seed": (90.0,)}


def write_model(folder: Path, name: str, accuracy: float, method: str) -> None:
    metrics = folder / "metrics" / name
    write_run(metrics, method=method, sweeps=1, finetune_epochs=3)
    (metrics / "growth.json").unlink()
    figures = {
        "grow": {
            "validation_accuracy": accuracy - 10,
            "images_seen": 1000,
            "statistics_images": 800 if method == "tiny" else 0,
            "seconds": 30.0,
        },
        "finetune": {"validation_accuracy": accuracy - 1, "images_seen": 3000, "seconds": 12.5},
        "export": {"test_accuracy": accuracy, "parameters": 4567, "multiply_adds": 891234},
        "validate": {"passed": name != "random-s1", "checks": {}},
    }
    for stage, value in figures.items():
        (metrics / f"{stage}.json").write_text(json.dumps(value))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ["other"]
    for row, accuracies in ACCURACIES.items():
        for seed, accuracy in enumerate(accuracies):
            names.append(f"{row}-s{seed}")
            method = {"seed": "none"}.get(row, row)
            write_model(tmp_path, names[-1], accuracy, method)
    names.append("scratch-s0")
    models = "".join(f"  {name}: {{data: d}}\n" for name in names)
    (tmp_path / "params.yaml").write_text(f"data: {{}}\nmodels:\n{models}")
    return tmp_path


def test_cells_are_mean_and_sample_deviation(folder: Path) -> None:
    found, _ = runs.collect(folder)
    table = rows.summarise(found)
    assert list(table) == ["tiny", "random", "seed"]
    for row, accuracies in ACCURACIES.items():
        cell = table[row]["test_accuracy"]
        assert cell.n == len(accuracies)
        assert cell.mean == pytest.approx(statistics.mean(accuracies))
        if cell.n > 1:
            assert cell.sd == pytest.approx(statistics.stdev(accuracies))
            assert table[row]["final_accuracy"].mean == pytest.approx(cell.mean - 1)
        else:
            assert cell.sd is None
    assert table["tiny"]["image_passes"].mean == 4000
    assert table["tiny"]["seconds"].mean == 42.5


def test_what_is_missing_is_named_and_not_made_up(folder: Path) -> None:
    (folder / "metrics/tiny-s1/export.json").unlink()
    found, missing = runs.collect(folder)
    assert "tiny-s1" not in {run.model for run in found}
    assert missing[0].startswith("model tiny-s1: metrics/tiny-s1/export.json not there")
    assert missing[1].startswith("model scratch-s0: metrics/scratch-s0/grow.json")
    assert missing[2] == "row scratch (full width from scratch): no finished model"
    text = rows.markdown(found, missing, "command", ["a machine"])
    assert "| full width from scratch | 0 | missing |" in text
    assert "| TINY, grown | 2 |" in text
    for line in missing:
        assert line in text


def test_the_table_says_what_wins_and_by_how_much(folder: Path) -> None:
    found, missing = runs.collect(folder)
    text = rows.markdown(found, missing, "the command", ["a machine"])
    deviation = statistics.stdev(ACCURACIES["tiny"])
    assert f"Highest mean test accuracy: TINY, grown, 97.92 ± {deviation:.2f} %." in text
    assert "same schedule, random neurons lies 1.50 points behind; ± " in text
    assert "seed network, never grown lies" in text and "no interval" in text
    assert "did NOT see" not in text
    assert "Did not pass the gate: random-s1." in text
    assert "the command" in text and "a machine" in text and "torch" in text


def test_a_gap_within_the_spread_is_no_win(folder: Path) -> None:
    for seed, accuracy in enumerate((97.0, 98.5, 98.0)):
        write_model(folder, f"random-s{seed}", accuracy, "random")
    lines = rows.verdict(rows.summarise(runs.collect(folder)[0]))
    assert "95 % interval" in lines[1] and "neither wins" in lines[1]


def test_the_interval_of_a_difference_is_welchs() -> None:
    first, second = [97.0, 98.5, 98.0], [90.1, 92.0]
    oracle = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    a, b = (rows.Cell(statistics.mean(x), statistics.stdev(x), len(x)) for x in (first, second))
    assert rows.half_width(a, b) == pytest.approx((oracle.high - oracle.low) / 2)
    assert rows.half_width(a, rows.Cell(90.0, None, 1)) is None
    assert rows.half_width(rows.Cell(1.0, 0.0, 2), rows.Cell(2.0, 0.0, 2)) == 0.0


def test_unequal_image_passes_are_told(folder: Path) -> None:
    path = folder / "metrics/seed-s0/grow.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images_seen": 2000}))
    lines = rows.verdict(rows.summarise(runs.collect(folder)[0]))
    assert lines[-1] == (
        "The rows did NOT see equally many images in training: 4,000 to 5,000 passes."
    )


def test_files_hold_every_cell(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert rows.main([str(folder), str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["rows.json", "rows.md", "rows.png", "rows.svg"]
    text = (out / "rows.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert str(tmp_path) not in text
    value = json.loads((out / "rows.json").read_text())
    assert {run["model"]: run["test_accuracy"] for run in value["runs"]} == {
        f"{row}-s{seed}": accuracy
        for row, accuracies in ACCURACIES.items()
        for seed, accuracy in enumerate(accuracies)
    }
    assert value["summary"]["seed"]["test_accuracy"] == {"mean": 90.0, "sd": None, "n": 1}
    svg = (out / "rows.svg").read_text()
    words = ["".join(e.itertext()) for e in ET.fromstring(svg).iter() if e.tag.endswith("text")]
    assert "TINY, grown (n = 3)" in words
    rows.main([str(folder), str(out)])
    assert (out / "rows.svg").read_text() == svg


def test_no_rows_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "params.yaml").write_text("data: {}\nmodels: {demo: {data: d}}\n")
    assert rows.main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "no model named <row>-s<seed>" in capsys.readouterr().err
    (tmp_path / "params.yaml").write_text("data: {}\nmodels: {tiny-s0: {data: d}}\n")
    assert rows.main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "is finished: model tiny-s0: metrics/tiny-s0/grow.json" in capsys.readouterr().err
    with pytest.raises(TinygrowError, match="does not exist"):
        runs.collect(tmp_path / "nowhere")


def test_mean_curve_is_the_mean_where_all_curves_are() -> None:
    x, y = mean_curve([[(0, 0), (10, 10)], [(0, 10), (5, 20), (20, 20)]])
    np.testing.assert_allclose(x, [0, 5, 10])
    np.testing.assert_allclose(y, [5, 12.5, 15])
