"""The wiring of ONNX files: what counts as a layer, and what is no path."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.closure import ROOT
from tinygrow.connectivity.from_onnx import from_onnx, load_onnx
from tinygrow.connectivity.segments import Wiring, wirings
from tinygrow.errors import TinygrowError

FLOAT = TensorProto.FLOAT


def graph_of(*nodes: onnx.NodeProto, **stored: np.ndarray) -> onnx.ModelProto:
    """Return a model from `x` (n, 4) to `y`; `w` is stored besides what is given."""
    tensors = {"w.weight": np.eye(4, dtype=np.float32), **stored}
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def wiring(*nodes: onnx.NodeProto, **stored: np.ndarray) -> Wiring:
    (found,) = wirings(from_onnx(graph_of(*nodes, **stored)))
    return found


def node(operator: str, inputs: str, output: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), output.split(), **attributes)


def test_a_matrix_product_counts_where_one_side_is_stored() -> None:
    found = wiring(node("MatMul", "x w.weight"))
    assert found.paths.counts == (0, 1) and found.segments[0].layers == ("w",)
    assert wiring(node("MatMul", "w.weight x")).paths.counts == (0, 1)
    made = [node("Transpose", "w.weight", "t"), node("Mul", "t t", "tt"), node("Gemm", "x tt")]
    assert wiring(*made).paths.counts == (0, 1)
    both = wiring(node("MatMul", "x w.weight", "a"), node("MatMul", "x a"))
    assert both.paths.counts == (1, 1)
    assert both.segments[0].foreign_merges == ("attention",)


def test_shape_arithmetic_and_constants_are_no_paths() -> None:
    found = wiring(
        node("MatMul", "x w.weight", "a"),
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "zeros"),
        node("Add", "a zeros", "b"),
        node("Reshape", "b s", "c"),
        node("Clip", "c low high"),
        low=np.float32(0),
        high=np.float32(6),
    )
    assert found.paths.counts == (0, 1)
    assert [v.kind for v in found.values] == ["source", "layer", "add", "identity", "other"]


def test_steps_of_a_quantisation_at_run_time_are_no_paths() -> None:
    found = wiring(
        node("DynamicQuantizeLinear", "x", "q step zero"),
        node("MatMulInteger", "q w8 zero", "i"),
        node("Cast", "i", "c", to=FLOAT),
        node("Mul", "c step"),
        w8=np.eye(4, dtype=np.int8),
    )
    assert found.paths.counts == (0, 1)


def test_an_embedding_counts_and_a_selection_does_not() -> None:
    cast = node("Cast", "x", "i", to=TensorProto.INT64)
    assert wiring(cast, node("Gather", "w.weight i")).paths.counts == (0, 1)
    picked = wiring(cast, node("Gather", "x i"))
    assert picked.paths.counts == (1,)
    assert picked.segments == ()


def test_an_average_that_is_written_as_a_convolution_is_none() -> None:
    into = node("Reshape", "x four", "image")
    stored = {"four": np.array([-1, 2, 2, 1], np.int64)}
    mean = np.full((2, 1, 2, 1), 0.5, np.float32)
    averages = node("Conv", "image a.mean", group=2)
    assert wiring(into, averages, **{"a.mean": mean}, **stored).paths.counts == (1,)
    # A layer of the network may have equal weights as well: the file has to say what it is.
    own = node("Conv", "image k", group=2)
    assert wiring(into, own, k=mean, **stored).paths.counts == (0, 1)
    mean[0, 0, 0, 0] = 0.25
    assert wiring(into, averages, **{"a.mean": mean}, **stored).paths.counts == (0, 1)


def test_layers_of_integers_are_named_by_their_weights() -> None:
    steps = {"s": np.float32(1), "z": np.int8(0), "own.weight_quantized": np.eye(4, dtype=np.int8)}
    product = node("QLinearMatMul", "q s z own.weight_quantized s z s z", "p")
    found = wiring(node("QuantizeLinear", "x s z", "q"), product, node("Relu", "p"), **steps)
    assert found.segments[0].layers == ("own",)


def test_a_way_that_hangs_on_data_is_refused() -> None:
    branch = helper.make_graph([], "b", [], [])
    choice = node("If", "x", then_branch=branch, else_branch=branch)
    with pytest.raises(TinygrowError, match="the ONNX graph holds If"):
        from_onnx(graph_of(choice))


def test_an_output_of_constants_alone_is_refused() -> None:
    with pytest.raises(TinygrowError, match="no output of the ONNX graph hangs on its input"):
        from_onnx(graph_of(node("Relu", "w.weight")))


def test_functions_of_the_file_are_looked_into() -> None:
    model = graph_of(helper.make_node("Twice", ["x"], ["y"], domain="own"))
    body = [
        helper.make_node("MatMul", ["a", "v"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
    ]
    constant = helper.make_node(
        "Constant", [], ["v"], value=numpy_helper.from_array(np.eye(4, dtype=np.float32))
    )
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(
        helper.make_function("own", "Twice", ["a"], ["c"], [constant, *body], opsets)
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert wirings(from_onnx(model))[0].paths.counts == (1, 1)


@pytest.mark.parametrize("content", [b"", b"no model at all", None])
def test_what_is_no_file_is_told_in_a_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TinygrowError, match=r"does not exist|is no ONNX file"):
        load_onnx(path)


def test_reading_files_and_cells_imports_no_torch() -> None:
    code = (
        "import sys, tinygrow.connectivity.from_onnx, tinygrow.connectivity.report,"
        " tinygrow.connectivity.space_report, tinygrow.connectivity.text,"
        " tinygrow.connectivity.drawing\nprint('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
