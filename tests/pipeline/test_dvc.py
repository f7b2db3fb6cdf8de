"""DVC itself reads `dvc.yaml` as it is meant, in the root and in a pipeline folder of its own."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.closure import ROOT
from tests.pipeline.run_dvc import dvc
from tests.pipeline.tiny import IMAGE_FOLDER, read_shipped, write_params

pytest.importorskip("dvc")


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def write_images(folder: Path, seed: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(seed)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def test_a_pipeline_folder_is_a_dvc_repository_of_its_own(workspace: Path) -> None:
    git(workspace, "init", "-q")
    folder = workspace / "experiments" / "own"
    folder.mkdir(parents=True)
    tree = read_shipped()
    tree["root"] = "../.."
    tree["data"]["digits"]["path"] = "../../requirements.lock"
    tree["models"] = {"own": tree["models"]["demo"]}
    write_params(folder, tree)
    shutil.copy(workspace / "dvc.yaml", folder / "dvc.yaml")
    shutil.copytree(
        ROOT / "experiments" / "digits" / ".dvc",
        folder / ".dvc",
        ignore=shutil.ignore_patterns("tmp", "cache"),
    )

    names = dvc(workspace, "stage", "list", "--all", "--name-only").split()
    assert "report@demo" in names
    assert not [name for name in names if name.endswith("@own")]
    assert "report@own" in dvc(folder, "stage", "list", "--name-only").split()

    dvc(folder, "repro", "download@digits")
    assert (folder / "data" / "digits.safetensors").is_file()
    assert (folder / "dvc.lock").is_file()
    assert not (workspace / "dvc.lock").exists()
    assert "didn't change, skipping" in dvc(folder, "repro", "download@digits")


def test_metrics_are_compared_with_a_commit(workspace: Path) -> None:
    git(workspace, "init", "-q")
    dvc(workspace, "config", "core.no_scm", "false")
    figures = workspace / "metrics" / "demo" / "grow.json"
    figures.parent.mkdir(parents=True)
    figures.write_text('{"parameters": 1}')
    git(workspace, "add", "params.yaml", "dvc.yaml", "metrics")
    git(workspace, "commit", "-q", "-m", "first")
    figures.write_text('{"parameters": 3}')

    answer = json.loads(dvc(workspace, "metrics", "diff", "--json"))

    assert answer["metrics/demo/grow.json"]["parameters"] == {"old": 1, "new": 3, "diff": 2}


def test_new_images_prepare_their_data_set_again_and_no_other(workspace: Path) -> None:
    tree = read_shipped()
    tree["data"]["mine"] = IMAGE_FOLDER | {"path": "inbox", "size": 4}
    write_params(workspace, tree)
    write_images(workspace / "inbox", seed=0)
    dvc(workspace, "repro", "download@mine")
    first = (workspace / "data" / "mine.safetensors").read_bytes()
    assert "up to date" in dvc(workspace, "status", "download@mine")

    write_images(workspace / "inbox", seed=1)
    assert "inbox" in dvc(workspace, "status", "download@mine")
    dvc(workspace, "repro", "download@mine")
    assert (workspace / "data" / "mine.safetensors").read_bytes() != first
