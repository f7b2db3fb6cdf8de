"""The NNGP kernel of two inputs behind layers of random weights (section 4 of the paper)."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinygrow.connectivity.dag import Dag


def correlation_behind(correlation: float) -> float:
    """Return f: the correlation of two inputs behind a linear layer and a ReLU.

    Weights are normal with variance 2 over the fan-in, which keeps the lengths of the inputs; the
    mean of the ReLU's outputs is dropped, as the paper does.

    Args:
        correlation: before the layer, from -1 to 1.

    Raises:
        ValueError: it is not.
    """
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation is {correlation}; it must be from -1 to 1")
    root = math.sqrt(1 - correlation * correlation)
    turned = 2 * correlation * math.asin(correlation) + 2 * root + math.pi * correlation
    return min(turned / (2 * math.pi), 1.0)


def profile(correlation: float, depth: int) -> list[float]:
    """Return 1 - f^t for t from 0 to `depth`: how far apart two inputs are after t layers."""
    falls = []
    for _ in range(depth):
        falls.append(1 - correlation)
        correlation = correlation_behind(correlation)
    return [*falls, 1 - correlation]


def kernel_of(dag: "Dag", correlation: float) -> tuple[float, float]:
    """Return the kernel at the sink: its diagonal, and its entry of two inputs of length 1.

    Summed edges are taken as uncorrelated. Their difference is the network's bound wherever what
    enters each layer is a multiple of one single correlation, as in the paper's three examples;
    elsewhere the bound, which adds up paths one by one, is another number.

    Args:
        dag: whose edges are layers of linear map and ReLU, or skips.
        correlation: of the inputs, from -1 to 1.
    """
    kernels = [(1.0, correlation)] + [(0.0, 0.0)] * (dag.nodes - 1)
    for edge in dag.edges:
        diagonal, entry = kernels[edge.source]
        for _ in range(edge.depth):
            entry = diagonal * correlation_behind(entry / diagonal) if diagonal else 0.0
        there = kernels[edge.target]
        kernels[edge.target] = (there[0] + diagonal, there[1] + entry)
    return kernels[-1]
