"""Which widths of anybody's network may grow, and why the others may not.

The forward pass is traced, and from each convolution and linear layer its outputs are followed to
the layer that reads them. A width may grow if it is private to that path: one layer writes it, one
reads it, and what stands between keeps channels apart. What the trace seems to allow is tried on a
copy before it counts.
"""

import copy
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from tinygrow.errors import TinygrowError
from tinygrow.growth.found import Discovery, Refusal
from tinygrow.growth.operations import (
    COUPLING,
    COUPLING_FUNCTIONS,
    JOINING,
    RESHAPING,
    call_pooling,
    is_elementwise,
    is_elementwise_call,
    module_pooling,
    name_of,
)
from tinygrow.growth.patches import check_layer
from tinygrow.growth.pooling import Pooling, pooled_size
from tinygrow.growth.resize import resize
from tinygrow.growth.sites import Site
from tinygrow.networks.norms import activations_of
from tinygrow.networks.tracing import BatchNorm, Trace, Values, first_line, trace

MAXIMUM_NOTE = "statistics through max-pooling are approximate: the average stands for it"

_WRAPPERS = (torch.jit.ScriptModule, nn.DataParallel, nn.parallel.DistributedDataParallel)

_TOLERANCE = 1e-4  # of the outputs' scale: sums of float32 in another order


def find_sites(model: nn.Module, example_input: torch.Tensor) -> Discovery:
    """Find every width of a network that may grow, and say of all others why they may not.

    Between the two layers of a site, Conv2d or Linear, there may be BatchNorm, element-wise
    activations, average, maximum and adaptive pooling, dropout and flattening, as modules,
    functions or methods. The network is not changed; a copy of it runs in evaluation mode.

    Args:
        model: any network.
        example_input: (B, C, H, W) or whatever the network reads, on its device.

    Returns:
        The sites, whose `index` counts from 0, and the refusals. A network that cannot be copied or
        traced, or does not run, has no site and one refusal, which tells the error.

    Raises:
        TinygrowError: the example is no batch.
    """
    if not isinstance(example_input, torch.Tensor) or not example_input.ndim:
        raise TinygrowError(
            f"example_input is a {type(example_input).__name__}; it must be one tensor, a batch"
            " that the network reads"
        )
    if isinstance(model, _WRAPPERS) or hasattr(model, "_orig_mod"):  # of torch.compile
        return _nothing(
            f"it is wrapped in a {type(model).__name__}, which torch.fx does not look into; pass"
            " the plain network, and wrap it again once it has grown"
        )
    try:
        network = copy.deepcopy(model).eval()
    except Exception as error:  # pruning leaves weights that are results, for example
        return _nothing(f"the network cannot be copied ({first_line(error)})")
    example = example_input if len(example_input) > 1 else torch.cat([example_input] * 2)
    with torch.no_grad():
        try:
            traced = trace(network)
        except Exception as error:
            return _nothing(
                "the network's way through its code hangs on data, which torch.fx cannot follow"
                f" ({first_line(error)})"
            )
        values = Values(network, traced.graph)
        try:
            values.run(example)
        except Exception as error:
            return _nothing(f"the network does not run on the example input ({first_line(error)})")
        found, refused = _walk_all(network, traced, values)
        proven, failed = _prove(model, found, example)
    depths = {name: number for number, name in enumerate(_layer_calls(network, traced.graph))}
    refused = sorted([*refused, *failed], key=lambda r: depths.get(r.layer, math.inf))
    sites = tuple(replace(site, index=i) for i, site in enumerate(proven))
    widths = tuple(len(model.get_submodule(site.first).get_parameter("weight")) for site in sites)
    return Discovery(sites, widths, tuple(refused))


class _Refused(Exception):
    """Why a width may not grow."""


@dataclass(slots=True)
class _Path:
    """What stands between the layers, as far as it has been followed.

    Attributes:
        shape: of the value.
        positions: of the map that was flattened; 0 before that.
    """

    shape: tuple[int, ...]
    norms: list[str] = field(default_factory=list)
    poolings: list[Pooling] = field(default_factory=list)
    positions: int = 0


class _Walker:
    """Follows the outputs of layers through a traced network."""

    def __init__(self, network: nn.Module, traced: Trace, values: Values) -> None:
        self.network = network
        self.values = values
        self.calls = Counter(str(n.target) for n in traced.graph.nodes if n.op == "call_module")
        self.shared = _shared_parameters(network)
        self.opaque = traced.opaque
        self.read = {str(n.target) for n in traced.graph.nodes if n.op == "get_attr"}

    def site(self, node: fx.Node, depth: int) -> Site:
        """Return the site that a layer's outputs are.

        Raises:
            _Refused: with the reason, where they are none.
        """
        first = str(node.target)
        self._check(first)
        path = _Path(self.values.shapes[node.name])
        while True:
            node = self._reader(node)
            if node.op == "call_module":
                module = self.network.get_submodule(str(node.target))
                if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                    break
                self._through_module(module, node, path)
            else:
                self._through_call(node, path)
            path.shape = self.values.shapes[node.name]
        second = str(node.target)
        self._check(second)
        self._check_pair(first, second, path)
        return Site(
            depth=depth,
            index=0,
            first=first,
            norm=path.norms[0] if path.norms else None,
            second=second,
            further_norms=tuple(path.norms[1:]),
            poolings=tuple(path.poolings),
            note=MAXIMUM_NOTE if any(p.maximum for p in path.poolings) else "",
        )

    def _check(self, name: str) -> None:
        """Refuse a layer that growth cannot read or change."""
        layer = self.network.get_submodule(name)
        if isinstance(layer, nn.Conv2d) and layer.groups != 1:
            raise _Refused(f"{name} is a grouped convolution (groups={layer.groups})")
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            raise _Refused(f"{name} is a {type(layer).__name__}; Conv2d and Linear grow")
        if not _runs_plainly(layer):
            raise _Refused(f"{name} is a {type(layer).__name__} with a forward pass of its own")
        self._check_alone(name)
        try:
            check_layer(layer, name)
        except TinygrowError as error:
            raise _Refused(str(error)) from error

    def _check_alone(self, name: str) -> None:
        """Refuse a module that is used twice, or whose weights are."""
        if self.calls[name] > 1:
            raise _Refused(f"{name} is called {self.calls[name]} times (shared weights)")
        if name in self.shared:
            raise _Refused(f"{name} shares its weights with {self.shared[name]}")
        if any(read.startswith(f"{name}.") for read in self.read):
            raise _Refused(f"the weights of {name} are read outside of it (shared weights)")

    def _reader(self, node: fx.Node) -> fx.Node:
        """Return the one node that reads a value."""
        readers = []
        for user in node.users:
            if user.op == "output":
                raise _Refused("its outputs are the network's own")
            if user.name in self.values.tensors:
                readers.append(user)
            else:
                self._check_shape_use(user)
        if not readers:
            raise _Refused("nothing reads its outputs")
        if len(readers) > 1:
            stream = any(name_of(r) in ("add", "iadd") for r in readers if r.op != "call_module")
            names = ", ".join(str(r.target) if r.op == "call_module" else r.name for r in readers)
            kind = " (a residual stream)" if stream else ""
            raise _Refused(f"several consumers read its outputs: {names}{kind}")
        return readers[0]

    def _check_shape_use(self, node: fx.Node) -> None:
        """Refuse sizes that are used for more than for shapes and assertions."""
        for user in node.users:
            if user.op == "output":
                raise _Refused(f"its size is an output of the network ({node.name})")
            if user.name not in self.values.tensors:
                self._check_shape_use(user)
            elif name_of(user) not in RESHAPING:
                raise _Refused(f"its size is used in {user.name}")

    def _through_module(self, module: nn.Module, node: fx.Node, path: _Path) -> None:
        name = str(node.target)
        if isinstance(module, BatchNorm):
            if len(path.shape) == 3 or activations_of(module) is None:
                raise _Refused(f"{name} ({type(module).__name__}) does not keep channels apart")
            self._check_alone(name)
            path.norms.append(name)
        elif isinstance(module, nn.Flatten):
            self._flatten(node, path)
        elif isinstance(module, COUPLING):
            raise _Refused(f"{name} ({type(module).__name__}) couples its channels")
        elif (pooling := module_pooling(module)) is not None:
            self._pool(pooling, node, path)
        elif not is_elementwise(module):
            inside = f"; inside, {self.opaque[name]}" if name in self.opaque else ""
            raise _Refused(f"unknown operation {name} ({type(module).__name__}) reads it{inside}")

    def _through_call(self, node: fx.Node, path: _Path) -> None:
        name = name_of(node)
        if len([n for n in node.all_input_nodes if n.name in self.values.tensors]) > 1:
            what = JOINING.get(name, f"meets another value in unknown operation {name}")
            raise _Refused(f"its output {what}")
        if name in JOINING and name not in ("add", "iadd", "mul", "imul"):
            raise _Refused(f"its output {JOINING[name]}")
        if name in COUPLING_FUNCTIONS:
            raise _Refused(f"{node.name} couples its channels")
        pooling = call_pooling(node)
        if pooling is not None:
            self._pool(pooling, node, path)
        elif name in RESHAPING:
            self._flatten(node, path)
        elif not is_elementwise_call(node):
            raise _Refused(f"unknown operation {name} reads it ({node.name})")

    def _pool(self, pooling: Pooling, node: fx.Node, path: _Path) -> None:
        if len(path.shape) != 4:
            raise _Refused(f"{node.name} pools what is no map of channels")
        size = pooled_size(path.shape[2:], (pooling,))
        shape = self.values.shapes[node.name]
        if shape not in ((*path.shape[:2], *size), path.shape[:2]):
            raise _Refused(f"{node.name} makes {shape} of {path.shape}")
        if len(shape) == 2:  # a mean that drops the dimensions
            path.positions = 1
        path.poolings.append(pooling)

    def _flatten(self, node: fx.Node, path: _Path) -> None:
        """Follow a change of shape that leaves all as it is or makes rows of maps."""
        shape = self.values.shapes[node.name]
        if shape == path.shape:
            return
        if len(path.shape) != 4 or shape != (path.shape[0], math.prod(path.shape[1:])):
            raise _Refused(f"{node.name} reshapes {path.shape} to {shape}")
        path.positions = math.prod(path.shape[2:])

    def _check_pair(self, first: str, second: str, path: _Path) -> None:
        one, two = self.network.get_submodule(first), self.network.get_submodule(second)
        if isinstance(one, nn.Linear) and isinstance(two, nn.Conv2d):
            raise _Refused(f"it is linear, and the convolution {second} reads it")
        if isinstance(one, nn.Conv2d) and isinstance(two, nn.Linear) and not path.positions:
            raise _Refused(f"{second} reads a map without its being flattened")
        if isinstance(one, nn.Linear) and path.norms and len(path.shape) != 2:
            raise _Refused(f"{path.norms[0]} does not normalise its features")


def _runs_plainly(layer: nn.Linear | nn.Conv2d) -> bool:
    """Say whether a layer applies its weight as PyTorch's own class does."""
    if nn.utils.parametrize.is_parametrized(layer) or "weight" not in layer._parameters:
        return False  # made anew at each pass, by a parametrisation or by a hook
    kind = type(layer)
    if issubclass(kind, nn.Linear):
        return kind.forward is nn.Linear.forward
    own = (nn.Conv2d.forward, nn.Conv2d._conv_forward)
    return (kind.forward, kind._conv_forward) == own


def _walk_all(
    network: nn.Module, traced: Trace, values: Values
) -> tuple[list[Site], list[Refusal]]:
    walker = _Walker(network, traced, values)
    sites, refused = [], []
    for depth, (name, node) in enumerate(_layer_calls(network, traced.graph).items(), 1):
        try:
            sites.append(walker.site(node, depth))
        except _Refused as why:
            refused.append(Refusal(name, str(why)))
    seen = {site.first for site in sites} | {refusal.layer for refusal in refused}
    refused += [
        Refusal(name, _why_unseen(name, traced))
        for name, module in network.named_modules()
        if name not in seen and isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    ]
    return sites, refused


def _layer_calls(network: nn.Module, graph: fx.Graph) -> dict[str, fx.Node]:
    """Return the (first) call of each layer, in the order in which the network runs."""
    calls: dict[str, fx.Node] = {}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(
            network.get_submodule(str(node.target)), nn.Linear | nn.modules.conv._ConvNd
        ):
            calls.setdefault(str(node.target), node)
    return calls


def _why_unseen(name: str, traced: Trace) -> str:
    """Say why a layer is not in the graph."""
    for path, reason in traced.opaque.items():
        if name.startswith(f"{path}."):
            return (
                f"the way through the code of {path} hangs on data, which torch.fx cannot follow"
                f" ({reason})"
            )
    called = {str(node.target) for node in traced.graph.nodes if node.op == "call_module"}
    for path in called:
        if name.startswith(f"{path}."):
            return f"it is inside of {path}, a module of PyTorch's that is not looked into"
    return "the network does not call it in evaluation mode"


def _shared_parameters(network: nn.Module) -> dict[str, str]:
    """Return, for each module that shares a parameter, another that has it."""
    owners: dict[int, list[str]] = defaultdict(list)
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)].append(name)
    return {
        name: next(other for other in names if other != name)
        for names in owners.values()
        if len(set(names)) > 1
        for name in names
    }


def _prove(
    model: nn.Module, found: Sequence[Site], example: torch.Tensor
) -> tuple[list[Site], list[Refusal]]:
    """Widen a copy by a unit that nothing reads: outputs must stay, whatever the trace says."""
    proven: list[Site] = []
    failed: list[Refusal] = []
    network = copy.deepcopy(model).eval()
    right = _outputs(network, example)
    for site in found:
        try:
            _one_wider(network, site)
            if not _alike(_outputs(network, example), right):
                raise _Refused("the network computes something else once it is wider")
            proven.append(site)
        # The network's own code runs, and can raise anything.
        except Exception as error:
            why = str(error)
            if not isinstance(error, _Refused):
                why = f"the network does not run once it is wider ({first_line(error)})"
            failed.append(Refusal(site.first, why))
            network = copy.deepcopy(model).eval()
            for good in proven:
                _one_wider(network, good)
    return proven, failed


def _one_wider(network: nn.Module, site: Site) -> None:
    resize(network, site, len(site.layers(network)[0].weight) + 1)


def _outputs(network: nn.Module, example: torch.Tensor) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(network(example)) if isinstance(leaf, torch.Tensor)]


def _alike(outputs: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= _TOLERANCE * (1e-6 + b.abs().max()))
        for a, b in zip(outputs, right, strict=True)
    )


def _nothing(why: str) -> Discovery:
    return Discovery((), (), (Refusal("", why),))
