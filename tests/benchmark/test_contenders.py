from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tinygrow.architecture import Architecture
from tinygrow.benchmark.contenders import onnx_contenders, torch_contenders
from tinygrow.data.prepared import DataCard
from tinygrow.deploy.contract import KEYS
from tinygrow.errors import TinygrowError
from tinygrow.networks.build import build_network
from tinygrow.products.export import export_onnx
from tinygrow.products.fold import fold_batch_norm
from tinygrow.settings.products import ExportSettings

SHAPE = (3, 8, 8)
CARD = DataCard(
    name="noise",
    source="noise",
    classes=("a", "b"),
    shape=SHAPE,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.25),
    counts={},
)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    architecture = Architecture(
        kind="resnet",
        input_shape=SHAPE,
        classes=2,
        stage_widths=(2,),
        blocks=(1,),
        middle_widths=(3,),
    )
    return build_network(architecture, 0).eval()


def test_every_contender_computes_the_same(network: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "fp32.onnx"
    export_onnx(fold_batch_norm(network), CARD, ExportSettings(), dict.fromkeys(KEYS, "x"), path)
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
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)


def test_channels_last_is_what_it_says(
    network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_compiler_that_fails_is_told(
    network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
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
