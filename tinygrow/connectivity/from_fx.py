"""The values of a PyTorch module, through `torch.fx`."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from tinygrow.connectivity.graph import Builder, Graph, Kind, Value
from tinygrow.errors import TinygrowError
from tinygrow.growth.operations import name_of
from tinygrow.networks.tracing import BatchNorm, Values, first_line, trace

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag)
_NORMS = (
    BatchNorm,
    *(nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm, nn.CrossMapLRN2d),
)
_IDENTITIES = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d),
    *(nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
)
_WEIGHED = frozenset(
    (
        *("linear", "bilinear", "matmul", "mm", "mv", "bmm", "addmm", "baddbmm", "einsum"),
        *("tensordot", "embedding", "conv1d", "conv2d", "conv3d", "conv_transpose1d"),
        *("conv_transpose2d", "conv_transpose3d"),
    )
)
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("add", "iadd", "sum"), "add"),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack", "hstack", "vstack"), "concat"),
    **dict.fromkeys(("getitem", "chunk", "split", "tensor_split", "narrow", "unbind"), "slice"),
    **dict.fromkeys(
        ("batch_norm", "group_norm", "layer_norm", "rms_norm", "instance_norm"), "norm"
    ),
    **dict.fromkeys(
        (
            *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "clone"),
            *("feature_dropout", "feature_alpha_dropout", "stochastic_depth", "contiguous"),
            *("detach", "float", "half", "to", "type", "flatten", "unflatten", "view"),
            *("reshape", "squeeze", "unsqueeze", "permute", "transpose", "movedim"),
        ),
        "identity",
    ),
}
_ATTENTION = "scaled_dot_product_attention"
# What is read of the others is their shape or their place alone.
_OF_THE_FIRST = frozenset(
    (
        *("view_as", "expand_as", "reshape_as", "type_as", "to", "gather", "index_select"),
        *("take_along_dim", "getitem", "dropout"),
    )
)
_OF_NONE = frozenset(
    (
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
        *("new_zeros", "new_ones", "new_full", "new_empty"),
    )
)


class UnreadableError(TinygrowError):
    """A module that `torch.fx` cannot look into; its exported ONNX graph may tell more."""


def from_module(network: nn.Module, *examples: torch.Tensor) -> Graph:
    """Return the values of a module in evaluation mode; it is not changed.

    Convolutions, linear layers and embeddings count 1, a recurrent module its number of layers;
    attention counts its two projections. Normalisation and PReLU count 0.

    Args:
        network: plain, not compiled.
        examples: what it reads, on its device.

    Raises:
        UnreadableError: it cannot be traced, or holds parameters in a part that cannot.
        TinygrowError: it does not run on the examples.
    """
    try:
        network = copy.deepcopy(network).eval()
    except Exception as error:  # pruning leaves weights that are results, for example
        raise UnreadableError(f"the network cannot be copied ({first_line(error)})") from error
    try:
        traced = trace(network)
    except Exception as error:  # the network's code runs on stand-ins and can raise anything
        raise UnreadableError(
            f"torch.fx cannot follow the network's code ({first_line(error)})"
        ) from error
    for path, reason in traced.opaque.items():
        if any(True for _ in network.get_submodule(path).parameters()):
            raise UnreadableError(f"torch.fx cannot look into {path} ({reason})")
    run = Values(network, traced.graph)
    try:
        with torch.no_grad():
            run.run(*examples)
    except Exception as error:
        raise TinygrowError(
            f"the network does not run on {', '.join(str(tuple(e.shape)) for e in examples)}"
            f" ({first_line(error)}); give it images of the shape that it reads"
        ) from error
    return _Reader(network, run).read(traced.graph, tuple(traced.opaque))


class _Reader:
    """Goes through a trace in order."""

    def __init__(self, network: nn.Module, run: Values) -> None:
        self.network, self.run = network, run
        self.built = Builder()
        self.numbers: dict[fx.Node, int] = {}
        self.used: set[str] = set()

    def read(self, graph: fx.Graph, opaque: tuple[str, ...]) -> Graph:
        sources = [n for n in graph.nodes if n.op == "placeholder" and n.name in self.run.tensors]
        shape = self.shape(sources[0]) if len(sources) == 1 else ()
        source = self.built.add(Value("input", (), 0, "source", shape))
        self.numbers = dict.fromkeys(sources, source)
        outputs: tuple[tuple[str, int], ...] = ()
        for node in graph.nodes:
            if node.op == "output":
                outputs = tuple(self.outputs(node.args[0]))
            elif node.op == "get_attr":
                self.used.add(str(node.target).rpartition(".")[0])
            elif node.op in ("call_module", "call_function", "call_method"):
                self.call(node)
        if not outputs:
            raise UnreadableError("the network gives no tensor that hangs on its input")
        return Graph(
            values=tuple(self.built.values),
            outputs=outputs,
            idle=tuple(self.idle(opaque)),
            origin="torch.fx",
            parameters=sum(parameter.numel() for parameter in self.network.parameters()),
        )

    def call(self, node: fx.Node) -> None:
        if node.op == "call_module":
            self.used.add(str(node.target))
        read = self.data_inputs(node)
        if not read or node.name not in self.run.tensors:
            return
        if node.op == "call_module":
            self.numbers[node] = self.module(node, read)
            return
        self.operation(node, read)
        if _works_in_place(node):  # who reads its first operand from here on reads the result
            self.numbers[node.all_input_nodes[0]] = self.numbers[node]

    def operation(self, node: fx.Node, read: list[int]) -> None:
        name = name_of(node)
        if name == "bilinear":
            raise UnreadableError(f"{node.name} is bilinear, a layer of two inputs")
        weighed = name in _WEIGHED and len(read) == 1 and self.constant(node) is not None
        if weighed:
            self.add(node, self.constant(node) or node.name, read, 1, "layer")
        else:
            if _hides(node) and (stored := self.constant(node)) is not None:
                raise UnreadableError(
                    f"{name} reads {stored}, and torch.fx takes it for a single operation"
                )
            kind = _KINDS.get(name, "other")
            if len(read) > 1 and kind not in ("add", "concat"):
                kind = "attention" if name in (*_WEIGHED, _ATTENTION) else "product"
            self.add(node, node.name, read, 0, kind)

    def module(self, node: fx.Node, read: list[int]) -> int:
        path = str(node.target)
        module = self.network.get_submodule(path)
        if isinstance(module, nn.MultiheadAttention):
            return self.attention(node, path, read)
        if isinstance(module, nn.Bilinear):
            raise UnreadableError(f"{path} is bilinear, a layer of two inputs")
        depth, kind = 0, _module_kind(module)
        if kind == "layer":
            depth = module.num_layers if isinstance(module, nn.RNNBase) else 1
        elif kind == "other":
            self.require_plain(module, path)
            kind = "product" if len(read) > 1 else "other"
        self.add(node, path, read, depth, kind)
        return self.numbers[node]

    def require_plain(self, module: nn.Module, path: str) -> None:
        """Refuse a part that may hide layers."""
        if not isinstance(module, nn.PReLU) and any(True for _ in module.parameters()):
            raise UnreadableError(
                f"{path} is a {type(module).__name__}, which torch.fx takes for a single operation"
            )

    def attention(self, node: fx.Node, path: str, read: list[int]) -> int:
        """Add the projections, their meeting, and the projection behind it.

        What serves as several of queries, keys and values is projected to them in one.
        """
        letters: dict[int, str] = {}
        for letter, number in zip("qkv", read, strict=False):
            letters[number] = letters.get(number, "") + letter
        names = {number: f"{path}.{own}_proj" for number, own in letters.items()}
        inputs = [self.built.add(Value(name, (n,), 1, "layer")) for n, name in names.items()]
        met = self.built.add(Value(f"{path}.attention", tuple(inputs), 0, "attention"))
        return self.built.add(Value(path, (met,), 1, "layer", self.shape(node)))

    def add(self, node: fx.Node, name: str, read: list[int], depth: int, kind: Kind) -> None:
        value = Value(name, tuple(read), depth, kind, self.shape(node))
        self.numbers[node] = self.built.add(value)

    def data_inputs(self, node: fx.Node) -> list[int]:
        name = name_of(node) if node.op != "call_module" else ""
        if name in _OF_NONE:
            return []
        nodes = [a for a in tree_leaves((node.args, node.kwargs)) if isinstance(a, fx.Node)]
        return [
            self.numbers[n]
            for n in nodes[: 1 if name in _OF_THE_FIRST else None]
            if n in self.numbers
        ]

    def constant(self, node: fx.Node) -> str | None:
        """Return the name of the stored tensor among what a node reads, or None."""
        waiting = [n for n in node.all_input_nodes if n not in self.numbers]
        for found in waiting:  # it grows on the way
            if found.op == "get_attr":
                return str(found.target).removesuffix(".weight")
            waiting += [n for n in found.all_input_nodes if n not in waiting]
        return None

    def outputs(self, argument: Any, name: str = "output") -> Iterator[tuple[str, int]]:
        if isinstance(argument, fx.Node):
            if argument in self.numbers:
                yield name, self.numbers[argument]
        elif isinstance(argument, Mapping):
            for key, part in argument.items():
                yield from self.outputs(part, str(key))
        elif isinstance(argument, tuple | list):
            for number, part in enumerate(argument):
                yield from self.outputs(part, f"{name}[{number}]")

    def idle(self, opaque: tuple[str, ...]) -> Iterator[str]:
        """Yield the layers that are called neither in evaluation nor in training."""
        called = self.used | set(opaque)
        layers = [p for p, m in self.network.named_modules() if _module_kind(m) == "layer"]
        idle = [path for path in layers if not _inside(path, called)]
        if idle:  # heads that only training looks at are no mistake
            try:
                nodes = list(trace(self.network.train()).graph.nodes)
            except Exception:  # as above; then nothing more is known
                nodes = []
            called |= {str(n.target) for n in nodes if n.op == "call_module"}
            called |= {str(n.target).rpartition(".")[0] for n in nodes if n.op == "get_attr"}
        yield from (path for path in idle if not _inside(path, called))

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return self.run.shapes.get(node.name, ())[1:]


def _works_in_place(node: fx.Node) -> bool:
    """Say whether a call changes its first operand, as `y.add_(x)` does."""
    known = isinstance(node.target, str)
    name = str(node.target) if known else getattr(node.target, "__name__", "")
    first = node.args[:1] == (*node.all_input_nodes[:1],)
    return first and name.endswith("_") and not name.endswith("__")


def _hides(node: fx.Node) -> bool:
    """Say whether a call may do more with a stored tensor than its name tells."""
    if node.op != "call_function":
        return False
    home = (getattr(node.target, "__module__", None) or "").split(".")[0]
    known = home in ("", "torch", "_operator", "builtins", "math")
    return not known or name_of(node) == "multi_head_attention_forward"


def _inside(path: str, parts: set[str]) -> bool:
    return path in parts or any(path.startswith(f"{part}.") for part in parts if part)


def _module_kind(module: nn.Module) -> Kind:
    """Return what a module is."""
    if isinstance(module, (*_LAYERS, nn.RNNBase, nn.RNNCellBase)):
        return "layer"
    if isinstance(module, _NORMS):
        return "norm"
    if isinstance(module, _IDENTITIES):
        return "identity"
    return "other"
