"""Pooling between two layers, as the linear map that statistics take it for (tiny.md 1.6).

Average pooling is linear, so pooling what a layer puts out is putting out pooled patches. The
maximum over a window is not: it is taken for the average over it, an approximation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class WindowPooling:
    """The average, or the maximum, over a window that moves over a map.

    Attributes:
        kernel: height and width of the window.
        stride: of its moves.
        padding: zeros on each side of height and width.
        ceil_mode: whether windows that hang over the end count.
        count_padding: whether zeros of the padding count in an average.
        divisor: what an average divides by instead of the window's size, or None.
        maximum: whether the network takes the maximum, which the average stands for here.
    """

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil_mode: bool = False
    count_padding: bool = True
    divisor: int | None = None
    maximum: bool = False

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Average maps (B, P, H, W) to (B, P, H', W')."""
        return F.avg_pool2d(
            maps,
            self.kernel,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_padding and not self.maximum,
            self.divisor,
        )


@dataclass(frozen=True, slots=True)
class AdaptivePooling:
    """The average, or the maximum, over parts of a map of whatever size.

    Attributes:
        output_size: height and width of what comes out; None: as it is.
        maximum: whether the network takes the maximum, which the average stands for here.
    """

    output_size: tuple[int | None, int | None]
    maximum: bool = False

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Average maps (B, P, H, W) to (B, P, H', W')."""
        return F.adaptive_avg_pool2d(maps, self.output_size)


Pooling = WindowPooling | AdaptivePooling


def pooled(
    columns: torch.Tensor, size: tuple[int, ...], poolings: Sequence[Pooling]
) -> torch.Tensor:
    """Pool patches as the outputs of their layer are pooled.

    Args:
        columns: (B, P, L), L the positions of the layer's output.
        size: (H, W) of that output, H * W = L.
        poolings: in the order in which they run; without any, the patches come back.

    Returns:
        (B, P, L').
    """
    if not poolings:
        return columns
    maps = columns.unflatten(2, size)
    for pooling in poolings:
        maps = pooling(maps)
    return maps.flatten(2)


def pooled_size(size: tuple[int, ...], poolings: Sequence[Pooling]) -> tuple[int, ...]:
    """Return (H', W') of a map (H, W) behind the poolings."""
    maps = torch.zeros(1, 1, *size)  # PyTorch's own rules for sizes; the work is nothing
    for pooling in poolings:
        maps = pooling(maps)
    return tuple(maps.shape[2:])
