import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinygrow.training import free_gpu
from tinygrow.training.free_gpu import Gpu, take, take_free

GPUS = [Gpu(0, "a"), Gpu(1, "b"), Gpu(2, "c")]
OTHER = """
import sys
from pathlib import Path
from tinygrow.training.free_gpu import Gpu, take_free
gpus = [Gpu(0, "a"), Gpu(1, "b"), Gpu(2, "c")]
print(take_free(gpus, print, Path(sys.argv[1])).index, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _freed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    held: list[int] = []
    monkeypatch.setattr(free_gpu, "_held", held)
    yield
    for file in held:
        os.close(file)


def refuse(line: str) -> None:
    pytest.fail(line)


def test_two_processes_take_different_ones_and_a_dead_one_frees_its_own(tmp_path: Path) -> None:
    assert take(GPUS[0], tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "1\n"
        assert not take(GPUS[1], tmp_path)
        assert take_free(GPUS, refuse, tmp_path) == GPUS[2]
    finally:
        other.kill()
        other.communicate()
    assert take_free(GPUS, refuse, tmp_path) == GPUS[1]


def test_where_all_are_taken_they_are_shared_in_turn_and_aloud(tmp_path: Path) -> None:
    for gpu, seconds in zip(GPUS, (30, 10, 20), strict=True):
        assert take_free([gpu], refuse, tmp_path) == gpu
        os.utime(tmp_path / f"tinygrow-gpu-{gpu.identity}.lock", (seconds, seconds))
    told: list[str] = []
    shared = [take_free(GPUS, told.append, tmp_path).index for _ in range(3)]
    assert shared == [1, 2, 0]
    assert "all 3 GPUs are taken by other runs: sharing cuda:1" in told[0]


def test_identity_counts_and_not_the_number_that_a_process_sees(tmp_path: Path) -> None:
    assert take(Gpu(0, "x"), tmp_path)
    assert not take(Gpu(3, "x"), tmp_path)
    assert take(Gpu(0, "y"), tmp_path)


def test_without_locks_every_gpu_counts_as_free(tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "such" / "folder"
    assert take_free(GPUS, refuse, nowhere) == take_free(GPUS, refuse, nowhere) == GPUS[0]


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "tinygrow-gpu-a.lock").symlink_to(target)
    assert take_free(GPUS, refuse, tmp_path) == GPUS[0]
    assert not target.exists()
