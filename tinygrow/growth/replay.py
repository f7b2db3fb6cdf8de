"""Running again only what a changed layer reaches: for searches that vary one layer's weights.

What comes before the layer gives the same values whatever its weights are. They are kept for each
input, and the network is run from the layer on. Which operations hang on the layer is read from a
trace of the network (torch.fx); a network that cannot be traced is run whole each time.
"""

import logging
from collections.abc import Iterable

import torch
from torch import fx, nn

_BYTES = 1 << 30
"""Of values kept; inputs beyond them are run whole."""
_ROUNDING = 1e-3  # share of the largest output; a wrong replay is off by far more

_log = logging.getLogger(__name__)

Values = dict[fx.Node, object]


class Replay:
    """A network that is called again and again on the same inputs, while one layer changes.

    Weights of other layers, modes and hooks must stay as they are at the first call. No gradients.

    Args:
        network: takes and gives one tensor.
        layer: module path of the layer whose weights change in place.
        limit: bytes of values kept.
    """

    def __init__(self, network: nn.Module, layer: str, limit: int = _BYTES) -> None:
        self._network = network
        self._layer = layer
        self._limit = limit
        self._tail: _Tail | None = None
        self._kept: dict[int, tuple[torch.Tensor, Values]] = {}  # the input keeps its id taken
        self._traced = False

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's output for `x`, which is not to be changed afterwards."""
        if not self._traced:
            self._traced, self._tail = True, self._checked(x)
        if self._tail is None:
            return self._network(x)
        if id(x) not in self._kept:
            if self._limit <= 0:
                return self._network(x)
            values = self._tail.before(x)
            self._limit -= sum(_bytes(value) for value in values.values())
            self._kept[id(x)] = x, values
        return self._tail.after(self._kept[id(x)][1])

    def _checked(self, x: torch.Tensor) -> "_Tail | None":
        """Return the part behind the layer, if running it gives what the whole network gives.

        A trace may be wrong where a network looks at its input, and keeping values where an
        operation overwrites one of them; twice, as the second run sees what the first left.
        """
        try:
            tail = _Tail(self._network, self._layer)
            values = tail.before(x)
            whole = self._network(x)
            close = _ROUNDING * float(whole.abs().max())
            for _ in range(2):
                torch.testing.assert_close(tail.after(values), whole, rtol=0.0, atol=close)
        except Exception as error:  # whatever a network's own code raises under a trace
            _log.debug("%s is run whole: %s", type(self._network).__name__, error)
            return None
        return tail


class _Tail:
    """A traced network, cut in front of a layer."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        graph = fx.Tracer().trace(network)
        module = fx.GraphModule(network, graph)
        self._interpreter = fx.Interpreter(module)
        nodes = list(module.graph.nodes)
        reached: set[fx.Node] = set()
        for node in nodes:
            is_layer = node.op == "call_module" and node.target == layer
            if is_layer or not reached.isdisjoint(node.all_input_nodes):
                reached.add(node)
        if not reached:
            raise ValueError(f"{layer} is not among the traced modules")
        self._before = [node for node in nodes if node not in reached]
        self._after = [node for node in nodes if node in reached]
        self._needed = {node for node in self._before if not reached.isdisjoint(node.users)}

    def before(self, x: torch.Tensor) -> Values:
        """Return the values that the part behind the cut reads."""
        self._interpreter.args_iter = iter([x])
        values: Values = {}
        self._run(self._before, values, keep=self._needed)
        return {node: values[node] for node in self._needed}

    def after(self, values: Values) -> torch.Tensor:
        """Return the network's output."""
        values = dict(values)
        self._run(self._after, values, keep=set(self._after[-1:]))
        output = values[self._after[-1]]
        assert isinstance(output, torch.Tensor)
        return output

    def _run(self, nodes: Iterable[fx.Node], values: Values, keep: set[fx.Node]) -> None:
        interpreter = self._interpreter
        interpreter.env = values
        for node in nodes:
            values[node] = interpreter.run_node(node)
            for over in interpreter.user_to_last_uses.get(node, []):
                if over not in keep:
                    values.pop(over, None)


def _bytes(value: object) -> int:
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0
