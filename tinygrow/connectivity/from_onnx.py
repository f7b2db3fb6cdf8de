"""The values of an ONNX file; nothing is run and no torch is needed."""

import math
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from tinygrow.connectivity.graph import Builder, Graph, Kind, Value
from tinygrow.errors import TinygrowError
from tinygrow.products.pooling import SUFFIX as MEAN

_WEIGHED = frozenset(
    (
        *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "FusedConv"),
        *("Gemm", "QGemm", "MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"),
        *("MatMulNBits", "Einsum", "RNN", "LSTM", "GRU"),
    )
)
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("Add", "Sum", "QLinearAdd"), "add"),
    **dict.fromkeys(("Concat", "QLinearConcat"), "concat"),
    **dict.fromkeys(("Slice", "Split"), "slice"),
    **dict.fromkeys(
        (
            *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"),
            *("LayerNormalization", "RMSNormalization", "MeanVarianceNormalization"),
        ),
        "norm",
    ),
    **dict.fromkeys(
        (
            *("Identity", "Cast", "CastLike", "Dropout", "Reshape", "Flatten", "Squeeze"),
            *("Unsqueeze", "Transpose", "QuantizeLinear", "DequantizeLinear"),
            "DynamicQuantizeLinear",
        ),
        "identity",
    ),
}
# What these read besides tells shapes, places, limits or steps.
_OF_THE_FIRST = frozenset(
    (
        *("Reshape", "Slice", "Expand", "Resize", "Upsample", "Pad", "Gather", "GatherElements"),
        *("GatherND", "Clip", "Squeeze", "Unsqueeze", "Tile", "Split", "TopK", "Trilu", "CumSum"),
        *("Dropout", "CastLike", "QuantizeLinear", "DequantizeLinear", "BatchNormalization"),
        *("QLinearConv", "ConvInteger", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"),
        *("ReduceL1", "ReduceL2", "ReduceProd", "ReduceLogSumExp", "ReduceSumSquare"),
    )
)
# Between the two factors of these stand steps and zero points.
_FACTORS_APART = frozenset(("QLinearConv", "QLinearMatMul", "QGemm"))
_OF_NONE = frozenset(("Shape", "Size", "ConstantOfShape", "RandomNormalLike", "RandomUniformLike"))
_WITH_BODIES = frozenset(("If", "Loop", "Scan", "SequenceMap"))


def load_onnx(path: Path) -> ModelProto:
    """Return the graph of an ONNX file, its large tensors left where they are.

    Raises:
        TinygrowError: there is no such file, or it is no ONNX file.
    """
    if not path.is_file():
        raise TinygrowError(f"{path} does not exist; name an .onnx file")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises types of no common base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TinygrowError(f"{path} is no ONNX file ({reason}); export the model again") from error
    if not model.graph.output:
        raise TinygrowError(f"{path} is no ONNX file (it has no output); export the model again")
    return model


def from_onnx(model: ModelProto) -> Graph:
    """Return the values of an ONNX graph.

    Convolutions and matrix products count 1 where one operand is stored in the file or made from
    what is, and 0 where both hang on the input. Shape arithmetic and constants are no paths. A
    pooling that our int8 files write as a depthwise convolution counts 0.

    Raises:
        TinygrowError: the graph branches or loops at run time, or no output hangs on an input.
    """
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    return _Reader(model).read()


class _Reader:
    """Goes through the nodes in order, which ONNX keeps sorted."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.stored = {tensor.name: tensor for tensor in self.graph.initializer}
        # Of each constant, the stored tensor that it was first made from.
        self.roots = {name: name for name in self.stored}
        self.shapes = _shapes(model)
        self.built = Builder()
        self.numbers: dict[str, int] = {}

    def read(self) -> Graph:
        inputs = [value.name for value in self.graph.input if value.name not in self.stored]
        shape = self.shapes.get(inputs[0], ()) if len(inputs) == 1 else ()
        source = self.built.add(Value("input", (), 0, "source", shape))
        self.numbers = dict.fromkeys(inputs, source)
        for node in self.graph.node:
            self.node(node)
        outputs = tuple(
            (value.name, self.numbers[value.name])
            for value in self.graph.output
            if value.name in self.numbers
        )
        if not outputs:
            raise TinygrowError(
                "no output of the ONNX graph hangs on its input; export the model again"
            )
        return Graph(
            values=tuple(self.built.values),
            outputs=outputs,
            origin="ONNX",
            parameters=sum(math.prod(tensor.dims) for tensor in self.stored.values()),
            norms_known=False,
        )

    def node(self, node: NodeProto) -> None:
        operator = node.op_type
        if operator in _WITH_BODIES:
            raise TinygrowError(
                f"the ONNX graph holds {operator} ({node.name or node.output[0]}), whose way hangs"
                " on data: its paths are not fixed; export the model without it"
            )
        operands = [name for name in node.input if name]
        embeds = operator == "Gather" and operands[0] not in self.numbers
        followed = operands[:1] if operator in _OF_THE_FIRST and not embeds else operands
        read = [self.numbers[name] for name in followed if name in self.numbers]
        factors = node.input[0:4:3] if operator in _FACTORS_APART else operands
        constants = [name for name in factors if name not in self.numbers]
        if operator in _OF_NONE or not read:
            own = node.output[0] if operator == "Constant" else ""
            root = next((self.roots[n] for n in constants if self.roots.get(n)), own)
            self.roots |= dict.fromkeys(node.output, root)
            return
        weights = next((self.roots[n] for n in constants if self.roots.get(n)), None)
        weighed = operator in _WEIGHED and len(read) == 1 and weights is not None
        layer = embeds or (weighed and not self.is_average(node, weights))
        kind: Kind = "layer" if layer else _KINDS.get(operator, "other")
        if len(read) > 1 and kind not in ("add", "concat"):
            kind = "attention" if operator in (*_WEIGHED, "Attention") else "product"
        name = _layer_name(weights) if layer and weights else node.output[0]
        shape = self.shapes.get(node.output[0], ())
        number = self.built.add(Value(name, tuple(read), int(layer), kind, shape))
        # Steps and zero points of a quantisation at run time are no way of their own.
        passed = node.output[:1] if operator == "DynamicQuantizeLinear" else node.output
        self.numbers |= dict.fromkeys((n for n in passed if n), number)

    def is_average(self, node: NodeProto, weights: str | None) -> bool:
        """Say whether a convolution is a pooling that `pools_to_convolutions` has written so.

        Its weights' name tells, and that they are equal: a network may have equal weights as well,
        such as zeros to begin with.
        """
        if not _plain_name(weights or "").endswith(MEAN):
            return False
        tensor = self.stored.get(weights or "")
        grouped = any(a.name == "group" and a.i > 1 for a in node.attribute)
        if tensor is None or not grouped or len(tensor.dims) < 3 or tensor.dims[1] != 1:
            return False
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return False
        values = numpy_helper.to_array(tensor)
        return bool(values.size and (values == values.flat[0]).all())


def _layer_name(weights: str) -> str:
    return _plain_name(weights).removesuffix(".weight")


def _plain_name(weights: str) -> str:
    return weights.removesuffix("_quantized")


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of values without the batch, where ONNX finds all of their sizes."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # it serves advice alone; protobuf raises types of no common base
        graph = model.graph
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = [d.dim_value for d in value.type.tensor_type.shape.dim][1:]
        if sizes and all(sizes):
            found[value.name] = tuple(sizes)
    return found
