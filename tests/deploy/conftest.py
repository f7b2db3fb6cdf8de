"""A model made by hand with ONNX alone: no torch is needed to test what must not need it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinygrow.deploy.contract import KEYS, Contract

CLASSES = ("dark", "grey", "bright")
BIASES = (100.0, 0.0, -155.0)


def make_model(contract: Contract, weight: float = 1.0, precision: str = "fp32") -> onnx.ModelProto:
    """Return a model whose logits are weight * (-m, 0, m) + BIASES for an image of mean m."""
    channels, height, width = contract.shape
    pixels = channels * height * width
    rows = np.outer((-weight, 0, weight), np.full(pixels, 1 / pixels)).astype(np.float32)
    constants = {
        "shape": np.array([-1, pixels], np.int64),
        "head.weight": rows,
        "head.bias": np.array(BIASES, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["cast", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *contract.shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        initializer=[numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    metadata = dict.fromkeys(KEYS, "1")
    metadata |= {
        "model": contract.model,
        "precision": precision,
        "classes": '["dark", "grey", "bright"]',
        "input": contract.input_json(),
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


def contract_of(shape: tuple[int, int, int]) -> Contract:
    return Contract(
        model="brightness",
        classes=CLASSES,
        shape=shape,
        mean=(0.5,) * shape[0],
        std=(0.25,) * shape[0],
    )


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a model for images of a shape."""

    def write(
        shape: tuple[int, int, int] = (3, 8, 8),
        change: Callable[[onnx.ModelProto], None] | None = None,
    ) -> Path:
        model = make_model(contract_of(shape))
        if change:
            change(model)
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write
