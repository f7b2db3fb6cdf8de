"""The graph of a network's forward pass, through `torch.fx`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, slots=True)
class Trace:
    """A traced forward pass in evaluation mode.

    Attributes:
        graph: layers, norms and PyTorch's own modules are single nodes in it.
        opaque: module path and reason of what could not be looked into: it is a single node too.
    """

    graph: fx.Graph
    opaque: Mapping[str, str]


class _Tracer(fx.Tracer):
    """Stops at layers and norms, of whatever class, and at modules that it is told not to enter."""

    def __init__(self, opaque: Mapping[str, str]) -> None:
        super().__init__()
        self.opaque = opaque
        self.failed: str | None = None

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        """Say whether a module is one node of the graph."""
        layers = (nn.modules.conv._ConvNd, nn.Linear, BatchNorm)
        return (
            path in self.opaque
            or isinstance(module, layers)
            or super().is_leaf_module(module, path)
        )

    def call_module(self, m: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Trace a module, and note the innermost one that cannot be traced."""
        try:
            return super().call_module(m, *args, **kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise


def trace(network: nn.Module) -> Trace:
    """Trace a network that is in evaluation mode.

    Modules whose way through the code depends on the data are left closed.

    Raises:
        Exception: whatever the network's own forward raised, where that cannot be traced.
    """
    opaque: dict[str, str] = {}
    while True:
        tracer = _Tracer(opaque)
        try:
            return Trace(tracer.trace(network), opaque)
        # The network's code runs on stand-ins for tensors, and can raise anything.
        except Exception as error:
            if tracer.failed is None or tracer.failed in opaque:
                raise
            opaque[tracer.failed] = first_line(error)


def first_line(error: BaseException) -> str:
    """Return an error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class Values(fx.Interpreter):
    """Runs a traced network and keeps what shape each node has.

    Args:
        network: that was traced.
        graph: its trace.

    Attributes:
        shapes: of the nodes that are a tensor.
        tensors: the nodes that are or hold tensors.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(fx.GraphModule(network, graph))
        self.extra_traceback = False  # an error is one line here, and its picture takes seconds
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.tensors: set[str] = set()

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.shapes[n.name] = tuple(value.shape)
        if any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(value)):
            self.tensors.add(n.name)
        return value
