"""The linear part of each affine operation, applied with weights or with their absolute values."""

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F

from tinygrow.growth.pooling import AdaptivePooling, WindowPooling
from tinygrow.stability.program import AveragePool, Convolution, Linear, MaxPool, ScaleAndShift

Affine = Convolution | Linear | ScaleAndShift | AveragePool
Map = Callable[[torch.Tensor], torch.Tensor]


def linear_map(node: Affine, dtype: torch.dtype, *, absolute: bool = False) -> Map:
    """Return the map x -> W x, or x -> |W| x, on batches of what the node reads.

    Args:
        node: an affine operation.
        dtype: to compute in; float32 weights are exact in float64.
        absolute: take the absolute values of the weights.
    """
    if isinstance(node, AveragePool):
        return node.pooling
    weight = node.weight.to(dtype)
    weight = weight.abs() if absolute else weight
    if isinstance(node, Linear):
        return lambda x: x @ weight.T
    if isinstance(node, ScaleAndShift):
        return lambda x: x * weight
    return lambda x: F.conv2d(
        x, weight, None, node.stride, node.padding, node.dilation, node.groups
    )


def offset(node: Affine, dtype: torch.dtype) -> torch.Tensor:
    """Return the bias, of a shape that broadcasts against what the node gives for one image."""
    if isinstance(node, AveragePool):
        return torch.zeros((), dtype=dtype)
    bias = node.bias.to(dtype)
    return bias.reshape(-1, 1, 1) if isinstance(node, Convolution) else bias


def terms(node: Affine, reads: tuple[int, ...]) -> int:
    """Return how many products, at most, one number of the output sums, and a bias.

    Args:
        node: an affine operation.
        reads: shape of what it reads, of one image.
    """
    if isinstance(node, AveragePool):
        pooling = node.pooling
        # The division counts as one more; an adaptive window is within the map.
        return 1 + prod(pooling.kernel if isinstance(pooling, WindowPooling) else reads[1:])
    if isinstance(node, ScaleAndShift):
        return 2
    return 1 + prod(node.weight.shape[1:])


def maximum(node: MaxPool, x: torch.Tensor) -> torch.Tensor:
    """Return the maxima over the node's windows, of a batch."""
    pooling = node.pooling
    if isinstance(pooling, AdaptivePooling):
        return F.adaptive_max_pool2d(x, pooling.output_size)  # type: ignore[arg-type]
    return F.max_pool2d(
        x, pooling.kernel, pooling.stride, pooling.padding, ceil_mode=pooling.ceil_mode
    )
