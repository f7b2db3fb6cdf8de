"""The comparison of methods, on a handful of made-up images."""

import json
import math
import statistics
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import methods
from benchmarks.methods_report import LABELS, collect, differences, interval, mean_points
from tests.growth.scenes import quick_settings
from tinygrow.errors import TinygrowError
from tinygrow.growth.neurons.method import METHODS
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.network import ResNetSettings

SMALL = methods.Setup(
    train_images=96,
    validation_images=30,
    test_images=20,
    network=ResNetSettings(base_width=4, blocks=(1, 1), start=0.25),
    growth=quick_settings(batch_growth="constant"),
    further_epochs=1,
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "Setup", lambda: SMALL)


def record(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_every_method_is_compared_under_a_name() -> None:
    used = {v.get("method", "tiny") for v in methods.VARIANTS.values()}
    assert used == {*METHODS, "none"}
    assert set(methods.VARIANTS) <= set(LABELS)


def test_runs_are_made_once_and_more_can_be_added(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    first = [str(out), "--data", str(data), "--seeds", "3", "--variants", "tiny", "never"]
    assert methods.main([*first, "scratch"]) == 0
    runs = {path.stem: record(path) for path in out.glob("*-s3.json")}
    assert set(runs) == {"tiny-s3", "never-s3", "scratch-s3"}
    tiny = runs["tiny-s3"]
    assert [p["widths"] for p in tiny["curve"][::2]] == [[1, 2], [2, 4], [3, 6], [4, 8]]
    assert tiny["parameters"] == runs["scratch-s3"]["parameters"] > runs["never-s3"]["parameters"]
    assert len({r["image_passes"] for r in runs.values()}) == 1
    assert len(tiny["falls"]) == 6 and not runs["never-s3"]["falls"]
    assert runs["scratch-s3"]["statistics_images"] == 0 < tiny["statistics_images"]

    written = (out / "tiny-s3.json").stat().st_mtime_ns
    extra = ["--extra", "louder", "amplitude.images=32", "solver.projection=false"]
    assert methods.main([*first[:-3], "3", "4", *extra, "--variants", "tiny", "louder"]) == 0
    assert (out / "tiny-s3.json").stat().st_mtime_ns == written
    assert {p.stem for p in out.glob("*.json")} == {
        *("setup", "tiny-s3", "never-s3", "scratch-s3"),
        *("tiny-s4", "louder-s3", "louder-s4"),
    }
    assert record(out / "louder-s4.json")["overrides"] == {
        "amplitude.images": 32,
        "solver.projection": False,
    }

    capsys.readouterr()
    assert methods.main([str(out), "--picture", str(tmp_path / "docs")]) == 0
    table = (tmp_path / "docs" / "methods.md").read_text()
    assert table in capsys.readouterr().out
    assert "| TINY | 2 |" in table and "| louder | 2 |" in table
    assert "| full width from scratch | 1 |" in table
    ET.fromstring((tmp_path / "docs" / "methods.svg").read_text())
    assert (tmp_path / "docs" / "methods.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_does_not_hang_on_those_before_it(tmp_path: Path, data: Path) -> None:
    def accuracy(out: Path, *variants: str) -> float:
        arguments = [str(out), "--data", str(data), "--seeds", "0", "--variants", *variants]
        assert methods.main(arguments) == 0
        value: float = record(out / "random-s0.json")["curve"][-1]["train_loss"]
        return value

    alone = accuracy(tmp_path / "a", "random")
    assert accuracy(tmp_path / "b", "random-variance", "random") == alone


def test_runs_of_two_setups_are_not_mixed(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path / "runs"), "--data", str(data), "--seeds", "0", "--variants", "never"]
    assert methods.main(arguments) == 0
    monkeypatch.setattr(methods, "Setup", lambda: replace(SMALL, further_epochs=2))
    assert methods.main(arguments) == 1
    assert "holds runs with further_epochs 1, not 2" in capsys.readouterr().err


def test_settings_are_overridden_by_dotted_names() -> None:
    settings = methods.overridden(
        GrowthSettings(),
        {"method": "firefly", "methods.firefly.steps": 3, "solver.projection": False},
    )
    assert settings.method == "firefly"
    assert settings.methods.firefly.steps == 3
    assert not settings.solver.projection
    with pytest.raises(TinygrowError, match="projections is no setting of SolverSettings"):
        methods.overridden(GrowthSettings(), {"solver.projections": False})
    assert methods.extra_variants([["a", "x=1", "y.z=grid"], ["b", "w=true"]]) == {
        "a": {"x": 1, "y.z": "grid"},
        "b": {"w": True},
    }


def test_intervals_are_students() -> None:
    values = [70.0, 71.5, 69.0]
    cell = interval(values)
    assert cell.mean == pytest.approx(statistics.mean(values))
    # t(0.975, 2) = 4.3027
    assert cell.half == pytest.approx(4.30265 * statistics.stdev(values) / math.sqrt(3), rel=1e-5)
    assert interval([70.0]).half is None


def test_differences_are_taken_seed_by_seed() -> None:
    runs = {
        "tiny": [{"seed": 0, "a": 1.0}, {"seed": 2, "a": 5.0}],
        "random": [{"seed": 0, "a": 1.5}, {"seed": 1, "a": 9.0}, {"seed": 2, "a": 4.0}],
    }
    assert differences(runs, "random", "a") == [0.5, -1.0]


def test_curves_are_means_over_seeds_of_what_was_trained() -> None:
    def run(*points: tuple[int, int, float]) -> dict[str, Any]:
        keys = ("images_seen", "parameters", "validation_accuracy")
        return {"curve": [dict(zip(keys, point, strict=True)) for point in points]}

    points = mean_points([run((0, 5, 9.0), (10, 10, 20.0), (20, 30, 40.0)), run((10, 20, 30.0))])
    assert [size for size, _ in points] == [15.0]
    assert points[0][1].mean == 25.0


def test_a_folder_without_runs_is_said(tmp_path: Path) -> None:
    with pytest.raises(TinygrowError, match="holds no finished run"):
        collect(tmp_path)
