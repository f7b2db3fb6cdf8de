"""From images to a validated model and its page: by the command line, and by DVC."""

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline import paths
from pipeline.cli import cli
from tests.pipeline.run_dvc import dvc
from tests.pipeline.tiny import GRADMAX, MLP, RESNET, write_tiny_params

STAGES = ("grow", "finetune", "compress", "export", "validate", "report")


OWN = {
    "kind": "custom",
    "network": "networks.vgg:vgg",
    "start": 0.25,
    "arguments": {"widths": [4], "hidden": 7},
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def figures(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("architecture", "growth"),
    [
        (RESNET, {"snapshots": True}),
        (MLP, {"train_after": "sweep"}),
        (RESNET, GRADMAX),
        (OWN, {}),
    ],
    ids=["resnet", "mlp", "gradmax", "own"],
)
def test_the_commands_make_a_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: dict[str, Any],
    growth: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_params(tmp_path, architecture, **growth)
    run("download", "digits")
    for stage in STAGES:
        run(stage, "demo")

    log = rows(paths.growth_table("demo"))
    assert [int(row["extension"]) for row in log] == list(range(7))  # 3 at each of 2 sites
    assert len(list(paths.snapshots("demo").iterdir())) == (7 if "snapshots" in growth else 1)
    assert [int(row["epoch"]) for row in rows(paths.finetune_table("demo"))] == [0, 1, 2]
    assert figures(paths.growth_metrics("demo"))["parameters"] == int(log[-1]["parameters"])
    summary = figures(paths.summary("demo"))
    assert summary["validated"] is True
    assert 0 <= summary["test_accuracy"] <= 100
    assert paths.report_page("demo").is_file()
    if growth is GRADMAX:
        assert {row["amplitude"] for row in log[1:]} == {"0.001"}
        assert {row["bottleneck_before"] for row in log} == {""}
    samples = sorted(map(str, paths.report_samples("demo").glob("*.png")))
    assert len(run("predict", "--provider", "cpu", *samples).splitlines()) == len(samples) > 0


def test_growth_whose_plan_is_open_makes_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_params(
        tmp_path,
        RESNET,
        where={"order": "greedy", "candidates": 0, "images": 200},
        when={"trigger": "plateau", "max_epochs": 0.2},
        until={"parameters": 1300},
    )
    run("download", "digits")
    told = run("grow", "demo")
    assert "growth ends: no further neurons fit into the budget under until" in told
    assert "at most about" in told
    for stage in STAGES[1:]:
        run(stage, "demo")

    log = rows(paths.growth_table("demo"))
    assert 1200 < int(log[-1]["parameters"]) <= 1300
    assert log[-1]["widths"] != "4 8"
    alone = [row for row in log[1:] if not row["site"]]
    assert alone
    assert {(row["sweep"], row["width_after"]) for row in alone} == {("0", "")}
    assert all(row["train_loss"] for row in alone)
    assert paths.report_page("demo").is_file()


def test_a_number_of_extensions_that_does_not_divide_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_params(tmp_path, RESNET, extensions=4)
    result = CliRunner().invoke(cli, ["download", "digits"])  # at once, not after the download
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert " 3" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not paths.prepared("digits").exists()


@pytest.mark.skipif(importlib.util.find_spec("dvc") is None, reason="DVC is not installed")
def test_dvc_makes_a_model_once_and_again_only_what_a_change_reaches(workspace: Path) -> None:
    write_tiny_params(workspace, RESNET)
    dvc(workspace, "repro", "report@demo")
    summary = workspace / paths.summary("demo")
    assert figures(summary)["validated"] is True
    assert dvc(workspace, "repro").count("didn't change, skipping") == 7

    text = (workspace / "params.yaml").read_text()
    assert text.count("epochs: 2\n") == 1
    (workspace / "params.yaml").write_text(text.replace("epochs: 2\n", "epochs: 1\n"))
    plan = dvc(workspace, "repro", "--dry")
    for stage in ("download@digits", "grow@demo"):
        assert f"Stage '{stage}' didn't change, skipping" in plan
    assert "Running stage 'finetune@demo'" in plan
