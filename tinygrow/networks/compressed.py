"""A network that was compressed, built again: narrower layers, and a graph without some of them.

The network before is folded (`fold_batch_norm`). What compression changed of its structure is plain
data in its architecture:

    {"widths": {LAYER: [outputs, inputs]}, "biased": [LAYER, ...], "edits": [EDIT, ...],
     "shifts": {LAYER: channels}}

with the module paths of layers whose weights have another shape, of those that had no bias, in
their order the changes of the graph that narrower layers do not make (`edited`), and the channels
of what these left of layers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from tinygrow.errors import TinygrowError
from tinygrow.growth.patches import Layer
from tinygrow.networks.tracing import trace

Edit = Mapping[str, Any]


class Shift(nn.Module):
    """What is left of a branch that is the same for every input: one number a channel is added.

    Args:
        bias: (C, 1, 1) or (features,).
    """

    def __init__(self, bias: torch.Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map the other operand of the sum to the sum."""
        return x + self.bias


def restructured(folded: nn.Module, structure: Mapping[str, Any]) -> nn.Module:
    """Return the network with the structure that compression gave it; its weights are anything.

    Args:
        folded: the network before; changed.
        structure: as above.

    Raises:
        TinygrowError: the structure is not one of this network.
    """
    try:
        for path, (outputs, inputs) in structure["widths"].items():
            set_widths(folded.get_submodule(path), outputs, inputs)
        for path in structure["biased"]:
            give_bias(folded.get_submodule(path))
        network = edited(folded, structure["edits"])
        for path, channels in structure["shifts"].items():
            shift = network.get_submodule(path)
            shape = (channels, *shift.get_parameter("bias").shape[1:])
            shift.bias = nn.Parameter(torch.zeros(shape), requires_grad=False)
    except (AttributeError, KeyError, LookupError, TypeError, ValueError) as error:
        raise TinygrowError(
            f"the structure of the compressed network does not fit its architecture ({error}); run"
            " the stage compress again"
        ) from error
    return network.eval().requires_grad_(False)


def set_widths(layer: nn.Module, outputs: int, inputs: int) -> None:
    """Give a layer zeros of another shape in place of its weight, and of its bias if it has one."""
    if not isinstance(layer, Layer):
        raise ValueError(f"{type(layer).__name__} has no widths")
    kernel = layer.weight.shape[2:]
    layer.weight = nn.Parameter(layer.weight.new_zeros(outputs, inputs, *kernel))
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.new_zeros(outputs))
    if isinstance(layer, nn.Conv2d):
        layer.out_channels, layer.in_channels = outputs, inputs
    else:
        layer.out_features, layer.in_features = outputs, inputs


def give_bias(layer: nn.Module) -> bool:
    """Give a layer a bias of zeros where it has none; say whether it had none."""
    if layer.bias is not None:
        return False
    weight = layer.get_parameter("weight")
    layer.bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=False)
    return True


def edited(network: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Return the network with changes of its graph; without any, the network itself.

    - `{"op": "fold", "layer": L, "reader": R}`: R reads what L reads. The widths say so already.
    - `{"op": "shortcut", "layer": L, "kind": "zero" or "constant"}`: of a sum of L's output and
      another value that other value is left, or plus a constant that takes L's name.
    - `{"op": "constant_network", "layer": L}`: L, the last layer, reads one number of the input.

    Layers that nothing needs any more are gone, and module paths stay what they are.

    Raises:
        LookupError: the graph has no such place.
    """
    if not edits:
        return network
    module = fx.GraphModule(network, trace(network).graph, class_name="Compressed")
    for edit in edits:
        _EDITS[edit["op"]](module, module.graph, edit)
        module.graph.eliminate_dead_code()
    module.graph.lint()
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def call_of(graph: fx.Graph, path: str) -> fx.Node:
    """Return the one node that calls the module at `path`.

    Raises:
        LookupError: there is none, or more than one.
    """
    found = [node for node in graph.nodes if node.op == "call_module" and node.target == path]
    if len(found) != 1:
        raise LookupError(f"{path} is called {len(found)} times")
    return found[0]


def sum_of(node: fx.Node, network: nn.Module) -> tuple[fx.Node, fx.Node]:
    """Return the sum that a layer's output goes into, and the operand that is the output.

    Raises:
        LookupError: it does not go into one sum of two values, and nowhere else.
    """
    operand = node
    while True:
        users = list(operand.users)
        if len(users) != 1:
            raise LookupError(f"{node.target} is read {len(users)} times")
        user = users[0]
        if user.op == "call_module" and isinstance(
            network.get_submodule(str(user.target)), nn.Identity
        ):
            operand = user
            continue
        plain = user.op in ("call_function", "call_method") and not user.kwargs
        name = str(getattr(user.target, "__name__", user.target)).rstrip("_")
        if plain and name in ("add", "iadd") and len(user.all_input_nodes) == 2 == len(user.args):
            return user, operand
        raise LookupError(f"{node.target} does not go into a sum")


def _fold(network: nn.Module, graph: fx.Graph, edit: Edit) -> None:
    layer, reader = call_of(graph, edit["layer"]), call_of(graph, edit["reader"])
    reader.args = (layer.args[0], *reader.args[1:])


def _shortcut(network: nn.Module, graph: fx.Graph, edit: Edit) -> None:
    path = edit["layer"]
    node = call_of(graph, path)
    total, operand = sum_of(node, network)
    (other,) = (value for value in total.args if value is not operand)
    if edit["kind"] == "zero":
        total.replace_all_uses_with(other)  # type: ignore[arg-type]
        return
    layer = network.get_submodule(path)
    assert isinstance(layer, Layer) and layer.bias is not None
    bias = layer.bias.detach()
    shift = Shift(bias.reshape(-1, 1, 1) if isinstance(layer, nn.Conv2d) else bias)
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, shift)
    with graph.inserting_before(total):
        new = graph.call_module(path, (other,))
    total.replace_all_uses_with(new)
    graph.erase_node(total)


def _constant_network(network: nn.Module, graph: fx.Graph, edit: Edit) -> None:
    head = call_of(graph, edit["layer"])
    (images,) = (node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_before(head):
        flat = graph.call_method("flatten", (images, 1))
        first = graph.call_method("narrow", (flat, 1, 0, 1))
    head.args = (first, *head.args[1:])


_EDITS = {"fold": _fold, "shortcut": _shortcut, "constant_network": _constant_network}
