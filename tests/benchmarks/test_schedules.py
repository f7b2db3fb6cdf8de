"""The comparison of schedules, on a handful of made-up images."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import schedules, schedules_report
from benchmarks.images import load_images
from benchmarks.schedules_plans import EPOCHS, PLANS, SITES, Plan, Setup
from tests.growth.scenes import quick_settings, resnet
from tinygrow.architecture import final_architecture, seed_architecture
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_parameters
from tinygrow.settings.network import ResNetSettings
from tinygrow.settings.plan import UntilSettings
from tinygrow.settings.training import TrainingSettings

SMALL = Setup(
    train_images=96,
    validation_images=30,
    test_images=20,
    network=ResNetSettings(base_width=4, blocks=(1, 1)),
    recipe=TrainingSettings(learning_rate=0.05, batch_size=16, schedule="cosine"),
    growth=quick_settings(batch_growth="constant"),
)
FEW = {
    "recipe": Plan(meaning="as it is", group="recipe", epochs=1),
    "recipe-hot": Plan(
        meaning="hot", group="recipe", epochs=1, recipe={"learning_rate": 0.2, "momentum": 0.9}
    ),
    "full-30": Plan(meaning="full width", group="shorter", epochs=2),
    "full-12": Plan(meaning="full width, shorter", group="shorter", epochs=1),
    "quarter": Plan(meaning="a quarter", group="uniform", start=0.25, epochs=2),
    "grown": Plan(
        meaning="grown", group="grown", start=0.25, sweeps=3, between=0.1666667, epochs=1
    ),
    "budget": Plan(
        meaning="stopped",
        group="budget",
        start=0.25,
        sweeps=3,
        between=0.1666667,
        epochs=1,
        growth={"until": UntilSettings(parameters=800)},
    ),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "Setup", lambda: SMALL)
    monkeypatch.setattr(schedules, "PLANS", FEW)
    monkeypatch.setattr(schedules_report, "PLANS", FEW)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "latency_of", lambda *_: {"1": 0.5, "64": 12.0})


def record(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.usefixtures("_quick")
def test_plans_are_compared_by_what_they_cost(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    arguments = [str(out), "--data", str(data), "--seeds", "1"]
    assert schedules.main(arguments) == 0
    runs = {path.stem.removesuffix("-s1"): record(path) for path in out.glob("*-s1.json")}
    assert set(runs) == {"full-30", "full-12", "quarter", "grown", "budget"}

    full, grown = runs["full-30"], runs["grown"]
    assert full["total_spent"] == 3 * 2 * 96 * full["multiply_adds"]
    assert runs["full-12"]["total_spent"] == full["total_spent"] / 2
    assert runs["quarter"]["total_spent"] == 3 * 2 * 96 * runs["quarter"]["multiply_adds"]
    assert grown["epochs"] == full["epochs"] == 2
    assert grown["parameters"] == full["parameters"] and grown["widths"] == full["widths"]
    assert 0 < grown["spent"]["training"] < full["total_spent"]
    assert grown["spent"]["statistics"] > 0 < grown["spent"]["search"]
    assert grown["total_spent"] == pytest.approx(sum(grown["spent"].values()))
    assert runs["quarter"]["parameters"] < runs["budget"]["parameters"] <= 800
    for run in runs.values():
        assert 0 <= run["test_accuracy"] <= 100

    written = (out / "grown-s1.json").stat().st_mtime_ns
    assert schedules.main([*arguments, "2", "--plans", "full-30"]) == 0
    assert schedules.main([*arguments, "--group", "recipe"]) == 0
    assert (out / "grown-s1.json").stat().st_mtime_ns == written
    recipes = [record(out / f"{name}-s1.json") for name in ("recipe", "recipe-hot")]
    assert [r["test_accuracy"] for r in recipes] == [None, None]
    assert recipes[0]["further"] != recipes[1]["further"]

    capsys.readouterr()
    assert schedules.main([str(out), "--picture", str(tmp_path / "docs")]) == 0
    table = (tmp_path / "docs" / "schedules.md").read_text()
    assert table in capsys.readouterr().out
    assert "| as it is | 1 |" in table and "| `full-30`: full width | 2 | 2.0 |" in table
    for stem in ("training", "use"):
        ET.fromstring((tmp_path / "docs" / f"{stem}.svg").read_text())
        assert (tmp_path / "docs" / f"{stem}.png").read_bytes().startswith(b"\x89PNG")


def test_latency_is_that_of_the_exported_file(data: Path) -> None:
    network = resnet()[0]
    card = load_images(data, SMALL, torch.device("cpu")).card
    found = schedules.latency_of(network, resnet()[1], card, "small", 0.05)
    assert set(found) == {"1", "64"} and 0 < found["1"] < found["64"]


def test_the_plans_make_whole_widths_and_equal_passes() -> None:
    setup = Setup()
    full = final_architecture(setup.network, (3, 32, 32), 10)
    for name, plan in PLANS.items():
        start = seed_architecture(ResNetSettings(base_width=16, start=plan.start), full)
        if plan.sweeps:
            assert len(full.middle_widths) == SITES
            assert plan.epochs + plan.sweeps * SITES * plan.between == EPOCHS, name
            steps = zip(start.middle_widths, full.middle_widths, strict=True)
            assert all((wide - narrow) % plan.sweeps == 0 for narrow, wide in steps), name
            assert plan.growth_settings(setup).training.schedule == "constant"
    half = seed_architecture(ResNetSettings(base_width=16, start=0.5), full)
    budget = PLANS["budget-parameters"].growth["until"].parameters
    assert budget == count_parameters(build_network(half, 0))
