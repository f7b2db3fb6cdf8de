import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tinygrow import distributed
from tinygrow.errors import TinygrowError
from tinygrow.training import free_gpu
from tinygrow.training.device import full_float32, own_device, pick_device


@pytest.fixture
def gpus(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[None]:
    """A machine on which PyTorch sees that many GPUs, all of them free."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=i))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held: list[int] = []
    monkeypatch.setattr(free_gpu, "_held", held)
    yield
    for file in held:
        os.close(file)


@pytest.mark.usefixtures("gpus")
class TestPickDevice:
    @pytest.mark.parametrize(
        ("gpus", "name", "device"),
        [
            (0, "auto", "cpu"),
            (0, "cpu", "cpu"),
            (1, "auto", "cuda"),
            (2, "auto", "cuda:0"),
            (2, "cpu", "cpu"),
            (2, "cuda", "cuda"),
            (2, "cuda:0", "cuda:0"),
            (2, "cuda:1", "cuda:1"),
        ],
        indirect=["gpus"],
    )
    def test_what_is_there_is_taken(self, name: str, device: str) -> None:
        assert pick_device(name) == torch.device(device)

    @pytest.mark.parametrize("gpus", [2], indirect=True)
    def test_auto_leaves_a_gpu_that_was_named_to_its_run(self) -> None:
        assert pick_device("cuda:0") == torch.device("cuda:0")
        assert pick_device("auto") == torch.device("cuda:1")
        told: list[str] = []
        assert pick_device("auto", told.append) == torch.device("cuda:0")
        assert "all 2 GPUs are taken" in told[0] and "sharing cuda:0" in told[0]

    @pytest.mark.parametrize(
        ("gpus", "name"),
        [(0, "cuda"), (0, "cuda:0"), (0, "cuda:99"), (2, "cuda:2"), (2, "cuda:99")],
        indirect=["gpus"],
    )
    def test_a_gpu_that_is_not_there(
        self, name: str, request: pytest.FixtureRequest, gpus: None
    ) -> None:
        count = request.node.callspec.params["gpus"]
        with pytest.raises(TinygrowError, match=rf"'{name}'.* sees {count} CUDA.*auto or cpu"):
            pick_device(name)

    @pytest.mark.parametrize("gpus", [0, 2], indirect=True)
    @pytest.mark.parametrize(
        "name", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "cuda:²", "mps", "cudax"]
    )
    def test_nonsense(self, name: str) -> None:
        with pytest.raises(TinygrowError, match="it must be auto, cpu, cuda or cuda:N"):
            pick_device(name)


@pytest.mark.usefixtures("gpus")
class TestOwnDevice:
    @pytest.fixture(autouse=True)
    def _second_of_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(distributed, "_current", distributed.Processes(1, 2))
        monkeypatch.setenv("LOCAL_RANK", "1")

    @pytest.mark.parametrize(
        ("gpus", "name", "device"),
        [(0, "auto", "cpu"), (2, "cpu", "cpu"), (2, "auto", "cuda:1"), (4, "cuda", "cuda:1")],
        indirect=["gpus"],
    )
    def test_each_process_has_its_own(self, name: str, device: str) -> None:
        told: list[str] = []
        assert own_device(name, 2, told.append) == torch.device(device)
        assert own_device(name, 0, lambda _: None) == torch.device(device)
        assert told == []

    @pytest.mark.parametrize("gpus", [2], indirect=True)
    def test_what_is_unlike_the_settings_or_shared_is_told(self) -> None:
        told: list[str] = []
        own_device("auto", 3, told.append)
        own_device("auto", 2, told.append)
        assert told == [
            "processes is 3 in the settings; here work 2",
            "cuda:1 is taken by another run; sharing it",
        ]

    @pytest.mark.parametrize(
        ("gpus", "name", "words"),
        [
            (1, "auto", "there are 1 GPUs for 2 processes; set processes to at most that"),
            (0, "cuda", "there are 0 GPUs for 2 processes"),
            (2, "cuda:1", "device is 'cuda:1' with 2 processes; take auto or cuda"),
            (2, "gpu", "it must be auto, cpu, cuda or cuda:N"),
        ],
        indirect=["gpus"],
    )
    def test_what_cannot_be_had_is_refused(self, name: str, words: str) -> None:
        with pytest.raises(TinygrowError, match=words):
            own_device(name, 2, lambda _: None)


class TestFullFloat32:
    def test_tf32_is_off_inside_and_as_before_outside(self) -> None:
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        try:
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.allow_tf32 = True
            with pytest.raises(ZeroDivisionError), full_float32():
                assert torch.get_float32_matmul_precision() == "highest"
                assert not torch.backends.cudnn.allow_tf32
                raise ZeroDivisionError
            assert torch.get_float32_matmul_precision() == "high"
            assert torch.backends.cudnn.allow_tf32
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]
