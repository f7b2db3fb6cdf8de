"""Two processes on the CPU, against one, and against what interrupts them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline import paths
from pipeline.closure import ROOT
from tests.growth.scenes import perceptron, stream
from tests.pipeline.run_dvc import environment
from tests.processes import scenes
from tinygrow import distributed
from tinygrow.errors import TinygrowError
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.loop import Trainer

PATIENCE = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program has left what its processes found."""
    folder = tmp_path_factory.mktemp("together")
    done = subprocess.run(
        [sys.executable, "-m", "tests.processes.program", folder],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "told.json").read_text())
    return told


@pytest.fixture(scope="module")
def found(folder: Path, told: dict[str, Any]) -> list[dict[str, Any]]:
    assert told["explored"] == 0, (folder / "explored.txt").read_text()
    return [torch.load(folder / f"found-{rank}.pt") for rank in range(2)]


def assert_close(one: Any, two: Any, tolerance: float) -> None:
    """Compare tensors, numbers and what holds them, relative to the largest entry."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        one, two = list(one.values()), list(two.values())
    if isinstance(one, list | tuple):
        assert len(one) == len(two)
        for left, right in zip(one, two, strict=True):
            assert_close(left, right, tolerance)
    elif isinstance(one, torch.Tensor):
        assert one.shape == two.shape
        error = (one.double() - two.double()).abs().max()
        assert error <= tolerance * two.double().abs().max().clamp_min(1e-3)
    elif one is None or two is None:
        assert one is two
    else:
        assert one == pytest.approx(two, rel=tolerance)


class TestShares:
    def test_batches_go_around_and_parts_are_nearly_equal(self, found: list[Any]) -> None:
        assert [f["group"] for f in found] == [(0, 2), (1, 2)]
        assert [f["shares"] for f in found] == [
            [[0, 2, 4], ["a", "c"], []],
            [[1, 3], ["b"], []],
        ]
        assert [f["parts"] for f in found] == [
            [[0, 1, 2], [0]],
            [[3, 4, 5, 6], [1]],
        ]

    def test_sums_and_what_the_first_says(self, found: list[Any]) -> None:
        for one in found:
            assert one["sum"] == [3.0, 20.0]
            assert one["first"]["rank"] == 0
            assert torch.equal(one["first"]["list"][0], torch.zeros(2))
            assert one["once"] == (5, 0)


class TestSameAsOneProcess:
    @pytest.mark.parametrize(
        ("name", "images"), [("neurons", 72), ("one batch", 16)], ids=["5 batches", "1 batch"]
    )
    def test_moments_neurons_running_statistics_and_evaluation(
        self, found: list[Any], name: str, images: int
    ) -> None:
        one = scenes.neurons(images)
        for each in found:
            assert each[name]["images"] == one["images"] == [images, images]
            assert_close(each[name], one, 1e-5)

    @pytest.mark.parametrize("name", ["mlp", "adam", "random", "finetuning", "compiled"])
    def test_weights_and_log_of_a_perceptron(self, found: list[Any], name: str) -> None:
        if name in ("finetuning", "compiled"):
            one = scenes.finetuning()
        else:
            changes = {"mlp": scenes.MLP, "adam": scenes.ADAM, "random": {"method": "random"}}
            one = scenes.growth("mlp", **changes[name])
        for each in found:
            assert_close(each[name], one, 1e-5)


class TestProcessesAgree:
    @pytest.mark.parametrize(
        "name", ["mlp", "adam", "random", "finetuning", "compiled", "resnet", "neurons"]
    )
    def test_to_the_last_bit(self, found: list[Any], name: str) -> None:
        assert_close(found[0][name], found[1][name], 0.0)

    def test_but_for_what_dropout_lets_through(self, found: list[Any]) -> None:
        one, two = found[0]["dropped"], found[1]["dropped"]
        assert one.shape == two.shape == (2, 64)
        draws = [tuple(draw.tolist()) for draw in (*one, *two)]
        assert len(set(draws)) == 4  # no two processes and no two steps draw the same


class TestFailure:
    def test_what_a_process_says_is_told_and_ends_all(
        self, folder: Path, told: dict[str, Any]
    ) -> None:
        assert told["raised"] == 1
        words = (folder / "raised.txt").read_text().splitlines()
        assert "process 1 of 2: the second has had enough" in words[0]

    def test_a_killed_process_ends_all(self, told: dict[str, Any]) -> None:
        assert told["killed"].startswith("process 1 of 2 was killed by SIGKILL")

    def test_what_all_say_is_told_once(self, folder: Path, told: dict[str, Any]) -> None:
        assert told["diverged"] == 1
        assert (folder / "diverged.txt").read_text().count("both have had enough") == 1


class TestStages:
    @pytest.mark.parametrize(
        ("stage", "statuses", "made"),
        [
            ("grow", [143, -9, 0], paths.grown("demo")),
            ("finetune", [143, 0], paths.finetuned("demo")),
        ],
    )
    def test_interrupted_and_gone_on_they_end_with_the_same_bits(
        self, folder: Path, told: dict[str, Any], stage: str, statuses: list[int], made: Path
    ) -> None:
        log = (folder / "stages" / "log.txt").read_text()
        assert told[f"whole {stage}"] == 0
        assert told[stage] == statuses, log
        one, two = (load_file(folder / name / made) for name in ("whole", "stages"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)

    def test_they_say_each_thing_once(self, folder: Path) -> None:
        log = (folder / "stages" / "log.txt").read_text()
        assert log.count("Stopped (terminated); saved: ") == 2
        assert log.count("Stopped (the program that started it is gone); saved: ") == 1
        assert log.count("going on from ") == 3
        assert log.count("extension 2/2 ") == log.count("epoch 2/2 ") == 1
        assert "Error" not in log and "Warning" not in log

    def test_no_process_is_left(self, told: dict[str, Any]) -> None:
        assert told["left"] == []


def test_a_batch_smaller_than_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_current", distributed.Processes(0, 3))
    network, _ = perceptron((3, 4))
    trainer = Trainer(network, stream(), TrainingSettings(batch_size=2), total_epochs=1.0)
    words = "a batch of 2 images is too small for 3 processes; raise batch_size or lower processes"
    with pytest.raises(TinygrowError, match=words):
        trainer.train(1.0)
