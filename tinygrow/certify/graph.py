"""An ONNX file as a list of operations and its weights, each looked at before it is used."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from tinygrow.certify.document import Refusal
from tinygrow.errors import TinygrowError

MAX_BYTES = 2**31 - 1
MAX_ELEMENTS = 2**28  # of one tensor: a file may name any shape
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64)


@dataclass(frozen=True, slots=True)
class Operation:
    """One node.

    Attributes:
        kind: ONNX operator.
        inputs: names of values and weights; empty where one is left out.
        output: its one output.
        attributes: numbers and lists of numbers.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Graph:
    """A network; rewriting changes it in place.

    Attributes:
        operations: in the order in which they run.
        weights: float32 or int64, by name.
        shape: of an image: channels, height, width.
        input: name of the input, uint8.
        output: name of the output.
    """

    operations: list[Operation]
    weights: dict[str, np.ndarray]
    shape: tuple[int, ...]
    input: str
    output: str

    def copy(self) -> "Graph":
        """Return a copy whose weights may be replaced."""
        return Graph(list(self.operations), dict(self.weights), self.shape, self.input, self.output)

    def maker(self, value: str) -> Operation | None:
        """Return the operation that makes a value."""
        return next((o for o in self.operations if o.output == value), None)

    def readers(self, value: str) -> list[Operation]:
        """Return the operations that read a value."""
        return [o for o in self.operations if value in o.inputs]

    def layer(self, path: str) -> Operation:
        """Return the operation that uses the weight of a layer.

        Raises:
            Refusal: there is not exactly one.
        """
        found = self.readers(f"{path}.weight") if f"{path}.weight" in self.weights else []
        if len(found) != 1 or len(found[0].inputs) < 2 or found[0].inputs[1] != f"{path}.weight":
            raise Refusal(f"the network before has no layer {path!r}")
        return found[0]

    def drop_unread(self) -> None:
        """Leave out operations that the output does not hang on."""
        wanted = {self.output}
        for operation in reversed(self.operations):
            if operation.output in wanted:
                wanted.update(operation.inputs)
        self.operations = [o for o in self.operations if o.output in wanted]

    def layer_of(self, operation: Operation) -> str | None:
        """Return the path of the layer that an operation is."""
        if operation.kind not in ("Conv", "Gemm", "MatMul") or len(operation.inputs) < 2:
            return None
        weight = operation.inputs[1]
        return weight.removesuffix(".weight") if weight in self.weights else None


def read_graph(path: Path) -> tuple[Graph, str]:
    """Read an ONNX file.

    Returns:
        The graph, and the SHA-256 of the file.

    Raises:
        TinygrowError: the file is missing or no ONNX file.
        Refusal: it is one that the checker does not look into.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TinygrowError(f"{path} has more than {MAX_BYTES} bytes; the checker reads less")
        content = path.read_bytes()
    except OSError as error:
        raise TinygrowError(
            f"{path} cannot be read ({error.strerror}); run the stages compress to validate first"
        ) from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise TinygrowError(f"{path} is not an ONNX file; make it again") from error
    if not model.graph.node:
        raise TinygrowError(f"{path} is not an ONNX file, or an empty one; make it again")
    return _graph(model.graph), hashlib.sha256(content).hexdigest()


def initializer_hashes(graph: Graph) -> dict[str, str]:
    """Return the SHA-256 of each float32 weight's little-endian bytes, by name."""
    return {
        name: hashlib.sha256(value.astype("<f4").tobytes()).hexdigest()
        for name, value in graph.weights.items()
        if value.dtype == np.float32
    }


def _graph(graph: onnx.GraphProto) -> Graph:
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise Refusal("the graph must have one input and one output")
    if graph.sparse_initializer or graph.quantization_annotation:
        raise Refusal("the graph holds weights in a form that the checker does not read")
    weights: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        if tensor.name in weights:
            raise Refusal(f"the weight {tensor.name!r} stands twice in the graph")
        weights[tensor.name] = _weight(tensor)
    kind = graph.input[0].type.tensor_type
    sides = tuple(dim.dim_value for dim in kind.shape.dim[1:])
    if kind.elem_type != onnx.TensorProto.UINT8:
        raise Refusal("the input is not uint8, so that its domain does not follow from its type")
    if len(sides) != 3 or min(sides) < 1 or prod(sides) > MAX_ELEMENTS:
        raise Refusal(f"the input has the shape {sides}; it must be channels, height, width")
    made = {graph.input[0].name, *weights}
    operations = []
    for node in graph.node:
        operation = _operation(node)
        if any(name and name not in made for name in operation.inputs):
            raise Refusal(f"the node that makes {operation.output!r} reads what none before makes")
        if operation.output in made:
            raise Refusal(f"the value {operation.output!r} is made twice")
        made.add(operation.output)
        operations.append(operation)
    if graph.output[0].name not in made:
        raise Refusal("no node makes the output")
    found = Graph(operations, weights, sides, graph.input[0].name, graph.output[0].name)
    found.drop_unread()
    return found


def _weight(tensor: onnx.TensorProto) -> np.ndarray:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise Refusal(f"the weight {tensor.name!r} lies outside of the file")
    if tensor.data_type not in _FLOATS:
        raise Refusal(f"the weight {tensor.name!r} is neither float32 nor int64")
    if any(side < 0 for side in tensor.dims) or prod(tensor.dims) > MAX_ELEMENTS:
        raise Refusal(f"the weight {tensor.name!r} has the shape {tuple(tensor.dims)[:8]}")
    try:
        value = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise Refusal(f"the weight {tensor.name!r} does not fill its shape") from error
    if value.dtype == np.float32 and not np.isfinite(value).all():
        raise Refusal(f"the weight {tensor.name!r} holds numbers that are not finite")
    return value


def _operation(node: onnx.NodeProto) -> Operation:
    if len(node.output) != 1 or node.domain not in ("", "ai.onnx"):
        raise Refusal(f"a node {node.op_type!r} has several outputs or is of another domain")
    attributes = {}
    for attribute in node.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise Refusal(f"a node {node.op_type!r} holds a graph of its own")
        value = onnx.helper.get_attribute_value(attribute)
        attributes[attribute.name] = tuple(value) if isinstance(value, list) else value
    return Operation(node.op_type, tuple(node.input), node.output[0], attributes)
