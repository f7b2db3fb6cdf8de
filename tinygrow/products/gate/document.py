"""Is it a sound ONNX file that carries everything with it?"""

from collections.abc import Iterator

import onnx
from google.protobuf.message import Message
from onnx import TensorProto

from tinygrow.products.gate.check import Check, judge
from tinygrow.products.gate.subject import Subject
from tinygrow.products.metadata import ABSOLUTE_PATH


def readable(subject: Subject) -> Check:
    """The file parses and has a graph."""
    size = len(subject.content)
    nodes = len(subject.model.graph.node)
    problems = [] if nodes else [f"{size} bytes without a graph; export the model again"]
    return judge("file", problems, {"bytes": size, "nodes": nodes})


def checker(subject: Subject) -> Check:
    """ONNX's full checker accepts it."""
    onnx.checker.check_model(subject.content, full_check=True)
    return judge("checker", [], {"ir_version": subject.model.ir_version})


def shapes(subject: Subject) -> Check:
    """Strict shape inference finds a shape for every value, and the output that is declared."""
    inferred = onnx.shape_inference.infer_shapes(
        subject.model, check_type=True, strict_mode=True, data_prop=True
    )
    known = {v.name for v in (*inferred.graph.value_info, *inferred.graph.output)}
    values = [name for node in inferred.graph.node for name in node.output]
    problems = [f"no shape for {name}" for name in values if name not in known]
    return judge("shapes", problems, {"values": len(values)})


def self_contained(subject: Subject) -> Check:
    """No external data, no foreign operators, no path of the machine it was made on."""
    model = subject.model
    problems = [
        f"{tensor.name} lies in another file"
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    ]
    problems += [f"operator domain {o.domain!r}" for o in model.opset_import if o.domain]
    problems += [f"function {function.name!r}" for function in model.functions]
    paths = _paths(model)
    problems += [f"absolute path {path!r}" for path in paths[:3]]
    numbers = {"initializers": len(model.graph.initializer), "absolute_paths": len(paths)}
    return judge("self_contained", problems, numbers)


def _paths(model: onnx.ModelProto) -> list[str]:
    """Return the absolute paths in all texts of the file: names, attributes, metadata."""
    return [m.group() for text in _texts(model) for m in ABSOLUTE_PATH.finditer(text)]


def _texts(message: Message) -> Iterator[str]:
    if isinstance(message, TensorProto):
        yield message.name
        yield message.doc_string
        return
    for _, value in message.ListFields():
        single = isinstance(value, str | bytes | int | float | Message)
        for item in [value] if single else value:
            if isinstance(item, bytes):
                yield item.decode("utf-8", errors="replace")
            elif isinstance(item, str):
                yield item
            elif isinstance(item, Message):
                yield from _texts(item)
