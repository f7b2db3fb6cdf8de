"""The graph of an exported file: its beginning, its order, and what every file ends as."""

from collections.abc import Iterable, Mapping

import onnx
from onnx import NodeProto

from tinygrow.deploy.contract import BATCH, INPUT
from tinygrow.errors import TinygrowError
from tinygrow.products.metadata import digest

_NORMALIZATION = ("Cast", "Mul", "Add")


def normalization_nodes(graph: onnx.GraphProto) -> list[NodeProto]:
    """Return Cast, Mul and Add, which take the input to normalised float32 images.

    They stay float32 in every product: they cost next to nothing, and what they lose, all layers
    lose.

    Raises:
        TinygrowError: the graph does not begin with them.
    """
    name, found = INPUT, []
    for operator in _NORMALIZATION:
        readers = [node for node in graph.node if name in node.input]
        if [node.op_type for node in readers] != [operator]:
            raise TinygrowError(
                f"the graph does not begin with {', '.join(_NORMALIZATION)}; use a file that the"
                " export stage made"
            )
        found.append(readers[0])
        name = readers[0].output[0]
    return found


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put each node behind those that it reads from, and else leave their order."""
    made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = next((n for n in waiting if all(not i or i in made for i in n.input)), None)
        if ready is None:
            raise TinygrowError(f"node {waiting[0].name!r} reads what no node before it makes")
        waiting.remove(ready)
        ordered.append(ready)
        made.update(ready.output)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(nodes)


def finish(model: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """Return the file's bytes, without what its makers left: stack traces, scopes, paths, names.

    Args:
        model: changed in place.
        metadata: entries; the digest is added.
    """
    graph = model.graph
    model.producer_name, model.producer_version = "tinygrow", ""
    model.doc_string, graph.doc_string, graph.name = "", "", metadata["model"]
    del model.metadata_props[:], graph.metadata_props[:]
    # Shape inference finds these again; here they would repeat their makers' names.
    del graph.value_info[:]
    _keep_domains(model, {node.domain for node in graph.node})
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
        value.doc_string = ""
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    for number, node in enumerate(graph.node):
        del node.metadata_props[:]
        node.doc_string, node.name = "", f"{number}.{node.op_type}"
    onnx.helper.set_model_props(model, {**metadata, "digest": digest(model)})
    return model.SerializeToString(deterministic=True)


def _keep_domains(model: onnx.ModelProto, used: Iterable[str]) -> None:
    """Drop operator domains that a maker names and no node needs."""
    kept = [o for o in model.opset_import if o.domain in ("", *used)]
    kept = [onnx.OperatorSetIdProto.FromString(o.SerializeToString()) for o in kept]
    del model.opset_import[:]
    model.opset_import.extend(kept)
