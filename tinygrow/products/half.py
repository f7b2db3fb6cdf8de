"""The fp16 product, made from the fp32 file: no GPU is needed, and no PyTorch."""

import onnx
from onnx import NodeProto, helper

from tinygrow.errors import TinygrowError
from tinygrow.products.graph import normalization_nodes, sort_nodes
from tinygrow.products.quiet import onnxruntime_tools

# The smallest and the largest float16: what lies beyond becomes these, and zero stays zero.
SMALLEST, LARGEST = 5.96e-08, 65504.0


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose network computes in float16, between the same input and output.

    Pixels are normalised in float32 and logits are cast back; only what lies between is halved.
    Weights become the nearest float16.

    Args:
        model: the fp32 product.

    Raises:
        TinygrowError: ONNX Runtime's converter cannot take the graph.
    """
    head = [_copy(node) for node in normalization_nodes(model.graph)]
    constants = {name for node in head for name in node.input}
    body = onnx.ModelProto()
    body.CopyFrom(model)
    graph = body.graph
    _replace(graph.node, [n for n in graph.node if n.output[0] not in {h.output[0] for h in head}])
    _replace(graph.initializer, [t for t in graph.initializer if t.name not in constants])
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    between = helper.make_tensor_value_info(head[-1].output[0], onnx.TensorProto.FLOAT, shape)
    _replace(graph.input, [between])

    half = _converted(body)
    _replace(half.graph.input, list(model.graph.input))
    half.graph.initializer.extend(t for t in model.graph.initializer if t.name in constants)
    half.graph.node.extend(head)
    sort_nodes(half.graph)
    return half


def _converted(body: onnx.ModelProto) -> onnx.ModelProto:
    try:
        with onnxruntime_tools():
            from onnxruntime.transformers.float16 import convert_float_to_float16

            return convert_float_to_float16(
                body, min_positive_val=SMALLEST, max_finite_val=LARGEST, keep_io_types=True
            )
    # The converter raises whatever its parts raise.
    except Exception as error:
        raise TinygrowError(
            "ONNX Runtime's converter cannot make float16 of the network"
            f" ({type(error).__name__}: {error}); leave fp16 out of export.precisions"
        ) from error


def _replace(field, values) -> None:  # type: ignore[no-untyped-def]
    """Give a repeated field of a protobuf message other values, which may be its own."""
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)


def _copy(node: NodeProto) -> NodeProto:
    return NodeProto.FromString(node.SerializeToString())
