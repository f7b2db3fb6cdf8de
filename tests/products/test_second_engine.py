"""OpenVINO, which shares no code with ONNX Runtime, reads the products and answers alike."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrow.data.prepared import Split
from tinygrow.deploy.sessions import open_session
from tinygrow.products.gate.subject import relative_difference, run_session

# OpenVINO tells its makers of every import, unless it finds nothing to tell them with.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed (pip install .[dev])")


def answers(path: Path, images: np.ndarray) -> np.ndarray:
    """Return OpenVINO's logits, computed in float32 where the file leaves it the choice."""
    core = openvino.Core()
    compiled = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled(images[i : i + 7])[0] for i in range(0, len(images), 7)])


# int8: each engine rounds to steps in an order of its own, and a step is a coarse thing.
@pytest.mark.parametrize(
    ("product", "limit"), [("exported", 1e-5), ("halved", 0.01), ("quantized", 0.1)]
)
def test_the_same_answers(
    product: str, limit: float, request: pytest.FixtureRequest, test_split: Split
) -> None:
    path: Path = request.getfixturevalue(product)
    images = test_split.images.numpy()
    right = run_session(open_session(path, "cpu"), images)
    found = answers(path, images)
    assert relative_difference(found, right) < limit
    same = np.mean(found.argmax(1) == right.argmax(1))
    assert same == 1 if product != "quantized" else same > 0.95
