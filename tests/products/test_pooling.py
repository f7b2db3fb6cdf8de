import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tinygrow.deploy.sessions import open_session
from tinygrow.products.pooling import pools_to_convolutions


def pooling(**attributes: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("AveragePool", ["x"], ["y"], name="pool", **attributes)],
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    (found,) = open_session(model.SerializeToString(), "cpu").run(None, {"x": images})
    return np.asarray(found)


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 0, 0, 0]},
        {"kernel_shape": [4, 3]},
    ],
)
def test_the_convolution_computes_the_same(attributes: dict[str, object]) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 6), np.float32)
    model = pooling(**attributes)
    changed = pools_to_convolutions(model)
    onnx.checker.check_model(changed, full_check=True)
    assert [node.op_type for node in changed.graph.node] == ["Conv"]
    assert [node.op_type for node in model.graph.node] == ["AveragePool"]
    np.testing.assert_allclose(run(changed, images), run(model, images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [2, 2], "dilations": [2, 2]},
    ],
)
def test_a_pooling_that_is_more_than_a_mean_stays(attributes: dict[str, object]) -> None:
    changed = pools_to_convolutions(pooling(**attributes))
    assert [node.op_type for node in changed.graph.node] == ["AveragePool"]
