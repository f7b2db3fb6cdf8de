from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.deploy.conftest import BIASES, CLASSES, contract_of, make_model
from tinygrow.benchmark.contenders import onnx_contenders, torch_contenders
from tinygrow.data.prepared import DataCard
from tinygrow.errors import TinygrowError

SHAPE = (3, 8, 8)
CARD = DataCard(
    name="noise",
    source="noise",
    classes=CLASSES,
    shape=SHAPE,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    counts={},
)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)


@pytest.fixture
def network() -> nn.Module:
    """Return what `make_model` computes, of normalised images."""
    convolution = nn.Conv2d(3, 3, 8)
    pixels = 3 * 8 * 8
    with torch.no_grad():
        sign = torch.tensor([-1.0, 0.0, 1.0])
        convolution.weight.copy_(
            (0.25 * 255 * sign / pixels).reshape(3, 1, 1, 1).expand(3, 3, 8, 8)
        )
        convolution.bias.copy_(torch.tensor(BIASES) + 0.5 * 255 * sign)
    return nn.Sequential(convolution, nn.Flatten())


def test_every_contender_computes_the_same(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "fp32.onnx"
    path.write_bytes(make_model(contract_of(SHAPE)).SerializeToString())
    onnx, absent = onnx_contenders([("fp32", path)], ["cpu"], 1)
    pytorch = torch_contenders(network, CARD, "cpu", compiled=False, note="n")
    assert absent == []
    assert [c.variant for c in (*onnx, *pytorch)] == [
        "fp32",
        "eager, n",
        "eager, channels-last, n",
    ]
    answers: list[Any] = [contender.prepare(IMAGES)() for contender in (*onnx, *pytorch)]
    right = answers[0][0]
    for found in answers[1:]:
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-3)


def test_channels_last_is_what_it_says(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    convolve = torch.nn.Conv2d.forward

    def forward(self: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return convolve(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    contiguous, channels_last = torch_contenders(network, CARD, "cpu", compiled=False)
    contiguous.prepare(IMAGES)
    assert not any(seen)
    seen.clear()
    channels_last.prepare(IMAGES)
    assert seen and all(seen)


def test_a_compiler_that_fails_is_told(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(*_: object, **__: object) -> Any:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", compiled)
    last = torch_contenders(network, CARD, "cpu", compiled=True)[-1]
    assert last.variant == "compiled"
    with pytest.raises(TinygrowError, match="cannot run it compiled: InvalidCxxCompiler: No work"):
        last.prepare(IMAGES)


def test_a_product_that_does_not_open_is_told(tmp_path: Path) -> None:
    (tmp_path / "int8.onnx").write_bytes(b"damaged")
    contenders, (line,) = onnx_contenders([("int8", tmp_path / "int8.onnx")], ["cpu"], 1)
    assert contenders == []
    assert line.startswith("onnxruntime int8 on cpu: ONNX Runtime cannot open")
