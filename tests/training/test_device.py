import pytest
import torch

from tinygrow.errors import TinygrowError
from tinygrow.training.device import full_float32, pick_device


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine on which PyTorch sees that many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)


@pytest.mark.usefixtures("gpus")
class TestPickDevice:
    @pytest.mark.parametrize(
        ("gpus", "name", "device"),
        [
            (0, "auto", "cpu"),
            (0, "cpu", "cpu"),
            (2, "auto", "cuda"),
            (2, "cpu", "cpu"),
            (2, "cuda", "cuda"),
            (2, "cuda:0", "cuda:0"),
            (2, "cuda:1", "cuda:1"),
        ],
        indirect=["gpus"],
    )
    def test_what_is_there_is_taken(self, name: str, device: str) -> None:
        assert pick_device(name) == torch.device(device)

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
