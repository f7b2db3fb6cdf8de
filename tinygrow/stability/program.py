"""A folded network as a straight line of operations that bounds can be pushed through.

Layers are named by their module path, so that `path + ".weight"` names the same tensor in the
checkpoint, in the program and in the ONNX file; all else has the name that tracing gave it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeGuard, TypeVar

import numpy as np
import torch
from torch import fx, nn

from tinygrow.data.prepared import DataCard
from tinygrow.errors import TinygrowError
from tinygrow.growth.operations import call_pooling, module_pooling, name_of
from tinygrow.growth.pooling import Pooling
from tinygrow.networks.tracing import Values, first_line, trace
from tinygrow.products.export import normalization
from tinygrow.stability.rounding import up

Shape = tuple[int, ...]
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation.

    Attributes:
        name: unique in the program.
        inputs: names of what it reads.
        shape: of what it gives for one image, without the batch.
    """

    name: str
    inputs: tuple[str, ...] = ()
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Input(Node):
    """The normalised image.

    Attributes:
        scale: float32 (C,), of `scale x + shift` for the uint8 image x.
        shift: float32 (C,).
        lower: float64 (C,), of the normalised values: the least that any order of rounding gives.
        upper: float64 (C,), the greatest.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution(Node):
    """A convolution with zero padding.

    Attributes:
        weight: float32 (C', C / groups, kh, kw).
        bias: float32 (C'), zeros where the layer has none.
        stride: of height and width.
        padding: zeros on each side of height and width.
        dilation: of height and width.
        groups: of channels.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Node):
    """A dense layer on a vector.

    Attributes:
        weight: float32 (n', n).
        bias: float32 (n'), zeros where the layer has none.
    """

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleAndShift(Node):
    """Each number times one weight plus one bias.

    Attributes:
        weight: float32, of a shape that broadcasts against the input.
        bias: likewise.
    """

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ReLU(Node):
    """The greater of each number and zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Node):
    """The sum of two values of one shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool(Node):
    """Averages over windows or, adaptive to 1 x 1, over the whole map."""

    pooling: Pooling


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool(Node):
    """Maxima over windows or parts of the map."""

    pooling: Pooling


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten(Node):
    """The same numbers in one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported(Node):
    """What no bound is known of: nothing is proved from its values.

    Attributes:
        reason: in words.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Program:
    """The operations in the order in which they run; the last one gives the logits.

    Attributes:
        nodes: the first is the `Input`.
    """

    nodes: tuple[Node, ...]

    @property
    def input(self) -> Input:
        """Return the input."""
        first = self.nodes[0]
        assert isinstance(first, Input)
        return first

    def __getitem__(self, name: str) -> Node:
        """Return a node by its name."""
        return next(node for node in self.nodes if node.name == name)

    def readers(self, name: str) -> tuple[Node, ...]:
        """Return the nodes that read a node."""
        return tuple(node for node in self.nodes if name in node.inputs)

    def layers(self) -> tuple[Node, ...]:
        """Return the layers whose output goes into ReLUs and nowhere else, in order."""
        return tuple(
            node
            for node in self.nodes
            if isinstance(node, Convolution | Linear | ScaleAndShift)
            and (readers := self.readers(node.name))
            and all(isinstance(reader, ReLU) for reader in readers)
        )

    def before_relus(self) -> tuple[Node, ...]:
        """Return all nodes that a ReLU reads, sums among them, in order."""
        read = {node.inputs[0] for node in self.nodes if isinstance(node, ReLU)}
        return tuple(node for node in self.nodes if node.name in read)

    def unsupported(self) -> tuple[str, ...]:
        """Return a line for each operation that nothing is known of."""
        return tuple(
            f"{node.name}: {node.reason}; nothing behind it is proved from its values"
            for node in self.nodes
            if isinstance(node, Unsupported)
        )


def input_box(card: DataCard) -> Input:
    """Return the domain of uint8 images, by type, as the shipped graph normalises it.

    The graph multiplies and adds in float32, perhaps fused. Both are monotone, so no pixel leaves
    the widest of what the extremes 0 and 255 give in either way and in real numbers. What is
    proved on this box holds for the float32 values themselves: their rounding is inside of it.
    """
    scale, shift = (torch.from_numpy(v).flatten() for v in normalization(card))
    exact = 255.0 * scale.double() + shift.double()  # of 56 bits at most: rounded once
    once, twice = exact.float().double(), (255.0 * scale + shift).double()
    ends = torch.stack([up(exact), once, twice])
    return Input(
        name="images",
        shape=card.shape,
        scale=scale,
        shift=shift,
        lower=shift.double(),
        upper=ends.amax(0),
    )


def program_of(folded: nn.Module, card: DataCard) -> Program:
    """Read the program of a network without BatchNorm.

    Args:
        folded: from `fold_batch_norm`.
        card: of the data, which fixes shape and normalisation of the images.

    Raises:
        TinygrowError: `torch.fx` cannot trace the network, or it does not end in one tensor.
    """
    try:
        graph = trace(folded).graph
        values = Values(folded, graph)
        with torch.no_grad():
            values.run(torch.zeros(1, *card.shape))
    # The network's own code runs, and can raise anything.
    except Exception as error:
        raise TinygrowError(
            f"stable units cannot be looked for in a network that torch.fx cannot trace"
            f" ({first_line(error)}); switch compression off for it"
        ) from error
    return _Reader(folded, values.shapes, input_box(card)).read(graph)


class _Reader:
    """Turns the nodes of a trace into those of a program."""

    def __init__(self, network: nn.Module, shapes: Mapping[str, Shape], box: Input) -> None:
        self.network, self.shapes, self.box = network, shapes, box
        self.nodes: dict[str, Node] = {}
        self.names: dict[fx.Node, str] = {}  # several where an operation changes nothing
        self.constants: dict[fx.Node, str] = {}
        self.calls: Counter[str] = Counter()
        self.paths = {path for path, _ in network.named_modules()}

    def read(self, graph: fx.Graph) -> Program:
        """Read all that the output hangs on."""
        self.calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
        for node in graph.nodes:
            if node.op == "placeholder":
                if self.nodes:
                    raise TinygrowError("the network reads more than one input; it must read one")
                self.nodes[self.box.name] = self.box
                self.names[node] = self.box.name
            elif node.op == "get_attr":
                self.constants[node] = str(node.target)
            elif node.op == "output":
                last = node.args[0]
                if not isinstance(last, fx.Node) or last not in self.names:
                    raise TinygrowError("the network must give one tensor, its logits")
                return Program(self._live(self.names[last]))
            elif node.users:
                self._add(node)
        raise TinygrowError("the network gives nothing")

    def _live(self, last: str) -> tuple[Node, ...]:
        """Return what the last node hangs on, in order."""
        live = {last, self.box.name}
        for name, node in reversed(self.nodes.items()):
            if name in live:
                live.update(node.inputs)
        return tuple(node for name, node in self.nodes.items() if name in live)

    def _add(self, node: fx.Node) -> None:
        read = [n for n in node.all_input_nodes if n in self.names]
        inputs = tuple(self.names[n] for n in read)
        shape = self.shapes.get(node.name, (1,))[1:]
        made = self._module(node, inputs, shape)
        if made is None:
            made = self._function(node, inputs, shape)
        if isinstance(made, str):
            self.names[node] = made
            return
        if isinstance(made, Convolution | Linear) and self.calls[made.name] > 1:
            reason = "a layer that is used more than once"
            made = Unsupported(
                name=self._free_name(node), inputs=inputs, shape=shape, reason=reason
            )
        self.nodes[made.name] = made
        self.names[node] = made.name

    def _free_name(self, node: fx.Node) -> str:
        """Return the name of an operation, which no layer may have as its path."""
        taken = node.name in self.paths or node.name == self.box.name
        return f"{node.name}()" if taken else str(node.name)

    def _module(self, node: fx.Node, inputs: tuple[str, ...], shape: Shape) -> Node | str | None:
        if node.op != "call_module":
            return None
        path = str(node.target)
        module = self.network.get_submodule(path)
        here: dict[str, Any] = {"name": path, "inputs": inputs, "shape": shape}
        if _is(module, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout1d, nn.Dropout3d):
            return inputs[0]
        if _is(module, nn.Conv2d) and module.padding_mode == "zeros":
            return _convolution(module, here)
        if _is(module, nn.Linear) and len(self.nodes[inputs[0]].shape) == 1:
            weight = module.weight.detach()
            return Linear(**here, weight=weight, bias=_bias(module.bias, len(weight)))
        here["name"] = self._free_name(node)
        if _is(module, nn.ReLU):
            return ReLU(**here)
        if _is(module, nn.Flatten) and len(shape) == 1:
            return Flatten(**here)
        if (pooling := module_pooling(module)) is not None:
            return (MaxPool if pooling.maximum else AveragePool)(**here, pooling=pooling)
        return Unsupported(**here, reason=f"a {type(module).__name__}")

    def _function(self, node: fx.Node, inputs: tuple[str, ...], shape: Shape) -> Node | str:
        here: dict[str, Any] = {"name": self._free_name(node), "inputs": inputs, "shape": shape}
        name = name_of(node)
        sources = [self.nodes[i] for i in inputs]
        constant = [self._constant(n) for n in node.all_input_nodes if n in self.constants]
        two = len(node.args) == 2 and not node.kwargs
        if not sources:
            return Unsupported(**here, reason=f"{name} of no value of the image")
        if name == "relu" and len(sources) == 1:
            return ReLU(**here)
        if name in ("contiguous", "clone") and len(sources) == 1:
            return inputs[0]
        if name in ("dropout", "dropout2d") and node.kwargs.get("training") is False:
            return inputs[0]
        if name in ("flatten", "view", "reshape") and shape == (prod(sources[0].shape),):
            return Flatten(**here)
        if name in ("add", "iadd") and two and not constant:
            if len(sources) == 1 and node.args[0] is node.args[1]:  # x + x
                return Add(**{**here, "inputs": inputs * 2})
            if len(sources) == 2 and sources[0].shape == sources[1].shape == shape:
                return Add(**here)
        if name in ("add", "iadd", "mul", "imul") and two and len(constant) == len(sources) == 1:
            return self._affine(node, constant[0], here)
        if (pooling := call_pooling(node)) is not None and len(shape) == 3:
            return (MaxPool if pooling.maximum else AveragePool)(**here, pooling=pooling)
        return Unsupported(**here, reason=f"the operation {name}")

    def _affine(self, node: fx.Node, constant: torch.Tensor, here: dict[str, Any]) -> Node:
        """Return the half of a `ScaleAndShift` that is a product, or the one that is a sum."""
        if np.broadcast_shapes(constant.shape, (1, *here["shape"])) != (1, *here["shape"]):
            return Unsupported(**here, reason="a constant of another shape")
        constant = constant.reshape(constant.shape[constant.ndim - len(here["shape"]) :])
        if "mul" in name_of(node):
            return ScaleAndShift(**here, weight=constant, bias=torch.zeros_like(constant))
        attribute = next(self.constants[n] for n in node.all_input_nodes if n in self.constants)
        path = attribute.rpartition(".")[0]
        here["name"] = path if path and path not in self.nodes else here["name"]
        return ScaleAndShift(**here, weight=torch.ones_like(constant), bias=constant)

    def _constant(self, node: fx.Node) -> torch.Tensor:
        path, _, name = self.constants[node].rpartition(".")
        value: torch.Tensor = getattr(self.network.get_submodule(path), name)
        return value.detach()


def _convolution(module: nn.Conv2d, here: dict[str, Any]) -> Node:
    padding = module.padding
    if isinstance(padding, str):
        sides = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        if padding == "same" and any(side % 2 for side in sides):
            return Unsupported(**here, reason="padding of unequal sides")
        padding = (0, 0) if padding == "valid" else (sides[0] // 2, sides[1] // 2)
    weight = module.weight.detach()
    return Convolution(
        **here,
        weight=weight,
        bias=_bias(module.bias, len(weight)),
        stride=module.stride,
        padding=padding,
        dilation=module.dilation,
        groups=module.groups,
    )


def _bias(bias: torch.Tensor | None, count: int) -> torch.Tensor:
    return torch.zeros(count) if bias is None else bias.detach()


def _is(module: nn.Module, *kinds: type[_Module]) -> TypeGuard[_Module]:
    """Say whether a module is of one of the kinds, and runs its code rather than its own."""
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)
