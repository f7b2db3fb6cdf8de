"""Which channels of a network vanish together, and which of them are the same for every input.

Values that operations keep apart channel by channel form a space: a layer writes it, ReLUs,
poolings and sums pass it on, layers read it. Inside of a residual block a space has one writer and
one reader; a residual stream is one space with many of both.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from tinygrow.growth.patches import Layer
from tinygrow.growth.pooling import WindowPooling
from tinygrow.stability.program import (
    Add,
    AveragePool,
    Convolution,
    Flatten,
    Linear,
    MaxPool,
    Node,
    Program,
    ReLU,
    ScaleAndShift,
)

Active = Mapping[str, Collection[int]]
"""Positions of units, by the layer whose pre-activation is on one side of zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Channels that only go together.

    Attributes:
        width: how many there are.
        nodes: of the program that hold them, in order.
        writers: layers that write them.
        readers: layers that read them.
        read: the node that each reader reads.
        shifts: what adds a constant to each of them.
        blocked: why no channel can be taken out; empty where one can.
        private: whether there is one writer and one reader, and between them nothing but ReLU,
            flattening and averages over whole windows: what is affine in the units stays so.
    """

    width: int
    nodes: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    read: Mapping[str, str]
    shifts: tuple[str, ...]
    blocked: str
    private: bool


def spaces_of(program: Program, network: nn.Module) -> tuple[Space, ...]:
    """Return the spaces of a program, in the order in which they are first written.

    Args:
        program: of `network`.
        network: says which of the nodes are layers that can be narrowed.
    """
    modules = dict(network.named_modules())
    home: dict[str, int] = {}
    members: dict[int, list[Node]] = {}
    blocked: dict[int, str] = {}
    reads: list[tuple[str, str]] = []

    def join(one: int, other: int) -> int:
        first, second = sorted((one, other))
        if first != second:
            for node in members.pop(second):
                members[first].append(node)
                home[node.name] = first
            if second in blocked:
                blocked.setdefault(first, blocked.pop(second))
        return first

    def begin(node: Node, number: int) -> None:
        home[node.name], members[number] = number, [node]

    for number, node in enumerate(program.nodes):
        sources = [home[name] for name in node.inputs]
        if isinstance(node, Convolution | Linear):
            begin(node, number)
            reads.append((node.name, node.inputs[0]))
            if not _plain(node, modules.get(node.name)):
                blocked[number] = f"{node.name} is no plain convolution or dense layer"
                blocked.setdefault(sources[0], blocked[number])
        elif sources and _keeps_channels(node, modules):
            place = sources[0]
            for name in node.inputs[1:]:
                place = join(place, home[name])
            home[node.name] = place
            members[place].append(node)
        else:
            begin(node, number)
            blocked[number] = "it is the image" if not sources else f"{node.name} joins channels"
            for source in sources:
                blocked.setdefault(source, f"{node.name} reads it")
    last = program.nodes[-1].name
    blocked.setdefault(home[last], "it is the network's output")
    order = {node.name: i for i, node in enumerate(program.nodes)}
    return tuple(
        _space(sorted(nodes, key=lambda n: order[n.name]), number, home, reads, blocked, modules)
        for number, nodes in sorted(members.items())
    )


def constant_values(
    program: Program, network: nn.Module, inactive: Active, active: Active
) -> dict[str, torch.Tensor]:
    """Return what each channel of each node always is, in float64; NaN where that is not known.

    A unit whose weights are zero is its bias; so is one that reads only what is always zero. All of
    it holds for every position of a map.

    Args:
        program: of `network`.
        network: holds the weights, float64.
        inactive: units whose pre-activation is never above zero.
        active: those where it is never below.
    """
    modules = dict(network.named_modules())
    values: dict[str, torch.Tensor] = {}
    for node in program.nodes:
        read = [values[name] for name in node.inputs]
        if isinstance(node, Convolution | Linear) and isinstance(
            layer := modules.get(node.name), Layer
        ):
            values[node.name] = _of_layer(layer, read[0])
        elif isinstance(node, ReLU):
            value = read[0].clamp_min(0.0)  # NaN stays
            value[[*inactive.get(node.inputs[0], ())]] = 0.0
            values[node.name] = value
        elif isinstance(node, Add) and len(read) == 2:
            values[node.name] = read[0] + read[1]
        elif (shift := _shift(node, modules)) is not None:
            values[node.name] = read[0] + shift.detach().double().flatten()
        elif isinstance(node, Flatten):
            values[node.name] = read[0]
        elif isinstance(node, AveragePool | MaxPool):
            value = read[0].clone()
            if not _keeps_constants(node):
                value[value != 0] = torch.nan
            values[node.name] = value
        else:
            channels = node.shape[0] if node.shape else 1
            values[node.name] = torch.full((channels,), torch.nan, dtype=torch.float64)
    return values


def _space(
    nodes: list[Node],
    number: int,
    home: Mapping[str, int],
    reads: Iterable[tuple[str, str]],
    blocked: Mapping[int, str],
    modules: Mapping[str, nn.Module],
) -> Space:
    layers = (Convolution, Linear)
    writers = tuple(node.name for node in nodes if isinstance(node, layers))
    read = {reader: source for reader, source in reads if home[source] == number}
    between = [node for node in nodes if not isinstance(node, layers)]
    affine = all(
        isinstance(node, ReLU | Flatten)
        or (isinstance(node, AveragePool) and _keeps_constants(node))
        for node in between
    )
    shape = nodes[0].shape
    return Space(
        width=shape[0] if shape else 1,
        nodes=tuple(node.name for node in nodes),
        writers=writers,
        readers=tuple(read),
        read=read,
        shifts=tuple(node.name for node in between if isinstance(node, ScaleAndShift)),
        blocked=blocked.get(number, ""),
        private=len(writers) == len(read) == 1 and affine,
    )


def _plain(node: Convolution | Linear, module: nn.Module | None) -> bool:
    if isinstance(node, Convolution) and node.groups != 1:
        return False
    return isinstance(module, Layer)


def _keeps_channels(node: Node, modules: Mapping[str, nn.Module]) -> bool:
    if isinstance(node, ScaleAndShift):
        return _shift(node, modules) is not None
    return isinstance(node, ReLU | Add | AveragePool | MaxPool | Flatten)


def _shift(node: Node, modules: Mapping[str, nn.Module]) -> torch.Tensor | None:
    """Return the constants that a node adds to its channels and a module of its name holds."""
    if not isinstance(node, ScaleAndShift) or not bool((node.weight == 1).all()):
        return None
    bias = getattr(modules.get(node.name), "bias", None)
    shape = (node.shape[0], *[1] * (len(node.shape) - 1))
    return bias if isinstance(bias, nn.Parameter) and bias.shape == shape else None


def _keeps_constants(node: AveragePool | MaxPool) -> bool:
    """Say whether a map that is the same everywhere stays what it is."""
    pooling = node.pooling
    if isinstance(node, MaxPool) or not isinstance(pooling, WindowPooling):
        return True
    return pooling.padding == (0, 0) and not pooling.ceil_mode and not pooling.divisor


def _of_layer(layer: Layer, read: torch.Tensor) -> torch.Tensor:
    """Return the outputs of a layer that are the same for every input, and NaN for the others."""
    weight = layer.weight.detach().double()
    each = weight.shape[1] // len(read)
    inputs = read.repeat_interleave(each)
    padded = isinstance(layer, nn.Conv2d) and not unpadded(layer)
    # Behind zero padding a constant is no constant: at the border zeros take its place.
    varies = torch.isnan(inputs) | ((inputs != 0) if padded else torch.zeros_like(inputs).bool())
    rows = weight.flatten(2).abs().amax(2) if weight.ndim == 4 else weight.abs()
    known = (rows * varies).amax(1) == 0 if prod(rows.shape) else torch.ones(len(rows)).bool()
    sums = weight.flatten(2).sum(2) if weight.ndim == 4 else weight
    values = sums @ torch.nan_to_num(inputs)
    if padded:
        values = torch.zeros_like(values)
    if layer.bias is not None:
        values = values + layer.bias.detach().double()
    return torch.where(known, values, torch.nan)


def unpadded(layer: Layer) -> bool:
    """Say whether every position of a layer's output reads the same number of inputs."""
    if isinstance(layer, nn.Linear):
        return True
    return layer.padding == "valid" or (
        not isinstance(layer.padding, str) and not any(layer.padding)
    )
