"""What a pre-activation is of the image and of the ReLUs before it: a matrix for each, exactly."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from tinygrow.stability.linear_maps import linear_map, offset
from tinygrow.stability.program import (
    Add,
    AveragePool,
    Convolution,
    Flatten,
    Input,
    Linear,
    Node,
    Program,
    ReLU,
    ScaleAndShift,
)


@dataclass(frozen=True, slots=True)
class Sum:
    """y = constant + sum of matrix . source, for some numbers y of a node.

    Attributes:
        matrices: by the name of the source, the input or the node that a ReLU reads (its output is
            meant), float64 (T, numbers of the source).
        constant: float64 (T,).
    """

    matrices: Mapping[str, torch.Tensor]
    constant: torch.Tensor


def affine_sum(program: Program, target: Node, flat: torch.Tensor, room: int) -> Sum | None:
    """Write numbers of a node as sums, or return None where they are none or too large.

    Args:
        program: that the node is of.
        target: the node.
        flat: int64 (T,), flat indices of the numbers.
        room: the most coefficients of one matrix.
    """
    nodes = program.nodes[: program.nodes.index(target) + 1]
    count = len(flat)
    if count * max(prod(node.shape) for node in nodes) > room:
        return None
    start = torch.zeros(count, prod(target.shape), dtype=torch.float64)
    start[torch.arange(count), flat] = 1.0
    on = {target.name: start.reshape(count, *target.shape)}
    sources: dict[str, torch.Tensor] = {}
    constant = torch.zeros(count, dtype=torch.float64)

    def hand(to: dict[str, torch.Tensor], name: str, A: torch.Tensor) -> None:
        to[name] = to[name] + A if name in to else A

    for node in reversed(nodes):
        if node.name not in on:
            continue
        A = on.pop(node.name)
        if isinstance(node, Input):
            hand(sources, node.name, A.flatten(1))
        elif isinstance(node, ReLU):
            hand(sources, node.inputs[0], A.flatten(1))
        elif isinstance(node, Add):
            for name in node.inputs:
                hand(on, name, A)
        elif isinstance(node, Flatten):
            hand(on, node.inputs[0], A.reshape(count, *program[node.inputs[0]].shape))
        elif isinstance(node, Convolution | Linear | ScaleAndShift | AveragePool):
            constant += (A * offset(node, torch.float64).expand(node.shape)).flatten(1).sum(1)
            shape = program[node.inputs[0]].shape
            with torch.enable_grad():
                zero = torch.zeros(count, *shape, dtype=torch.float64, requires_grad=True)
                out = linear_map(node, torch.float64)(zero)
            (back,) = torch.autograd.grad(out, zero, A)
            hand(on, node.inputs[0], back)
        else:
            return None
    return Sum(sources, constant)
