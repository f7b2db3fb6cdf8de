"""Stages that are killed and run again end as if nothing had been."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline import paths
from pipeline.closure import ROOT
from tests.pipeline.run_dvc import dvc, environment
from tests.pipeline.tiny import RESNET, write_tiny_params

PATIENCE = 120.0
KILLER = (sys.executable, "-m", "tests.pipeline.killer")


def tinygrow(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def kill_and_resume(folder: Path, stage: str, kills: int, seed: int) -> list[int]:
    """Let `killer` have the stage; return the exit statuses of its runs."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.pipeline.killer",
            folder,
            stage,
            "demo",
            str(kills),
            str(seed),
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    statuses: list[int] = json.loads(done.stdout)
    return statuses


def assert_same_weights(one: Path, two: Path) -> None:
    left, right = load_file(one), load_file(two)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def assert_same_outcome(folder: Path, stage: str) -> None:
    """Compare weights (and snapshots) in `folder` and in `folder/whole`, bit for bit."""
    whole = folder / "whole"
    made = paths.grown("demo") if stage == "grow" else paths.finetuned("demo")
    assert_same_weights(folder / made, whole / made)
    if stage == "grow":
        names = sorted(file.name for file in (whole / paths.snapshots("demo")).iterdir())
        assert names == sorted(file.name for file in (folder / paths.snapshots("demo")).iterdir())
        for name in names:
            snapshot = paths.snapshots("demo") / name
            assert_same_weights(folder / snapshot, whole / snapshot)


def resumed_from(folder: Path) -> set[str]:
    log = (folder / "log.txt").read_text()
    return set(re.findall(r"^going on from (.*) \(", log, re.MULTILINE))


@pytest.mark.parametrize("stage", ["grow", "finetune"])
@pytest.mark.parametrize(
    ("kills", "size"), [(3, 1), pytest.param(50, 40, marks=pytest.mark.slow)], ids=["3", "50"]
)
def test_killed_at_random_points_a_stage_ends_with_the_same_bits(
    tmp_path: Path, stage: str, kills: int, size: int
) -> None:
    long = size if stage == "grow" else 1
    write_tiny_params(tmp_path, RESNET, snapshots=True, epochs_between=0.25 * long)
    text = (tmp_path / "params.yaml").read_text()
    assert text.count("epochs: 2\n") == 1
    epochs = 4 * size if stage == "finetune" else 2
    (tmp_path / "params.yaml").write_text(text.replace("epochs: 2\n", f"epochs: {epochs}\n"))

    statuses = kill_and_resume(tmp_path, stage, kills, seed=kills)

    assert len(statuses) == kills + 1
    assert set(statuses[:-1]) <= {-signal.SIGKILL, 129, 130, 143}
    assert len(resumed_from(tmp_path)) > kills / 2  # most of them from a place of their own
    assert_same_outcome(tmp_path, stage)
    assert progress(tmp_path, stage) == "the end"


@contextmanager
def running_dvc(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run DVC as from a terminal: in a process group of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=environment() | {"TINYGROW_SAVE_EVERY": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def progress(folder: Path, stage: str = "grow") -> str:
    for file in (folder / ".state").glob(f"{stage}-demo-*/about.json"):
        try:
            return str(json.loads(file.read_text()).get("progress", ""))
        except (OSError, ValueError):
            return ""
    return ""


def await_progress(folder: Path, process: subprocess.Popen[str], before: str) -> str:
    """Wait until the stage has saved another state than `before`."""
    end = time.monotonic() + PATIENCE
    while (now := progress(folder)) in ("", before):
        if process.poll() is not None:
            pytest.fail(process.communicate()[0])
        assert time.monotonic() < end, "no progress"
        time.sleep(0.01)
    return now


def stage_process(folder: Path) -> int:
    (file,) = (folder / ".state").glob("grow-demo-*/lock")
    return int(file.read_text())


def await_end(process: int) -> None:
    end = time.monotonic() + PATIENCE
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < end, f"process {process} does not end"
        time.sleep(0.01)


@pytest.mark.skipif(importlib.util.find_spec("dvc") is None, reason="DVC is not installed")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes by /proc")
def test_dvc_repro_goes_on_after_its_death_ctrl_c_and_a_killed_stage(workspace: Path) -> None:
    write_tiny_params(workspace, RESNET, epochs_between=1.0)
    dvc(workspace, "repro", "download@digits")
    tinygrow(workspace, "grow", "demo")
    (workspace / paths.grown("demo")).rename(workspace / "whole.safetensors")
    shutil.rmtree(workspace / ".state")  # or its end would be gone on from

    with running_dvc(workspace, "repro", "grow@demo") as process:
        seen = await_progress(workspace, process, "")
        stage = stage_process(workspace)
        process.terminate()  # DVC alone: its stage is an orphan
        process.wait(PATIENCE)
        await_end(stage)
    kept = progress(workspace)
    assert kept

    with running_dvc(workspace, "repro", "grow@demo") as process:
        seen = await_progress(workspace, process, kept)
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
        told, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert f"going on from {kept}" in told
    assert "Stopped (interrupted); saved: " in told
    assert progress(workspace) >= seen

    with running_dvc(workspace, "repro", "grow@demo") as process:
        await_progress(workspace, process, progress(workspace))
        os.kill(stage_process(workspace), signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert not (workspace / paths.grown("demo")).exists()

    dvc(workspace, "repro", "grow@demo")
    assert_same_weights(workspace / paths.grown("demo"), workspace / "whole.safetensors")
    assert progress(workspace) == "the end"
