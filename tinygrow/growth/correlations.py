"""Sums over pairs of taps as correlations of maps, without im2col (tiny.md 1.6).

Two taps that read maps at a fixed offset from each other give the same sum whichever taps they are,
but for positions near the border. So each offset is summed once, over the whole map; what a pair of
taps must not count there is taken off again: whole rows, whole columns, and (then taken off twice)
the points where they cross. Between the taps of a 3x3 kernel there are 25 offsets, 13 up to
symmetry, in place of 81 pairs.

Shapes: B images, C and D channels, H W space.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_weight

Pair = tuple[int, int]
Block = tuple[int, int, int, int]
"""Taps of x (vertical, horizontal), then of y."""

_SMALL_MAP = 64
"""Positions from which on one convolution is faster than a product for each offset (measured)."""


@dataclass(frozen=True, slots=True)
class Axis:
    """How pairs of taps meet along one axis.

    Pair (a, b) sums x[i] y[i + shift] over all i where both exist, each `count` times less `less`.

    Attributes:
        shift: by pair of taps.
        less: by pair of taps and position i, where not zero.
        count: of positions away from the border.
    """

    shift: dict[Pair, int]
    less: dict[Pair, dict[int, float]]
    count: float

    @property
    def shifts(self) -> list[int]:
        """All shifts, ascending."""
        return list(range(min(self.shift.values()), max(self.shift.values()) + 1))


def gram_axis(size: int, kernel: int, padding: int, weights: Sequence[float]) -> Axis:
    """Return the axis of sum_p weights[p] x[p - padding + a] x[p - padding + b].

    Args:
        size: of x.
        kernel: taps.
        padding: zeros before x.
        weights: of each position p of the layer's output.
    """
    count = max(weights)
    shift: dict[Pair, int] = {}
    less: dict[Pair, dict[int, float]] = {}
    for a in range(kernel):
        for b in range(kernel):
            step = shift[a, b] = b - a
            less[a, b] = {}
            for i in range(max(0, -step), min(size, size - step)):
                p = i + padding - a
                weight = weights[p] if 0 <= p < len(weights) else 0.0
                if weight != count:
                    less[a, b][i] = count - weight
    return Axis(shift, less, count)


def cross_axis(sizes: tuple[int, int, int], kernels: Pair, paddings: Pair) -> Axis:
    """Return the axis of sum_j v[j] x[j + e - padding_2 + t - padding_1] for pairs (e, t).

    Args:
        sizes: of the second layer's output v, of the hidden map, of the first layer's input x.
        kernels: taps of the second layer (e) and of the first (t).
        paddings: of the second layer and of the first.
    """
    outputs, hidden, size = sizes
    shift: dict[Pair, int] = {}
    less: dict[Pair, dict[int, float]] = {}
    for e in range(kernels[0]):
        for t in range(kernels[1]):
            step = shift[e, t] = e - paddings[0] + t - paddings[1]
            less[e, t] = {
                j: 1.0
                for j in range(max(0, -step), min(outputs, size - step))
                if not 0 <= j - paddings[0] + e < hidden  # the tap reads the hidden map's padding
            }
    return Axis(shift, less, 1.0)


def correlate(
    x: torch.Tensor, y: torch.Tensor, vertical: Axis, horizontal: Axis, *, symmetric: bool = False
) -> dict[Block, torch.Tensor]:
    """Return the (C, D) sum of each pair of taps.

    Args:
        x: (B, C, H, W).
        y: (B, D, H', W').
        vertical: pairs of taps along H.
        horizontal: pairs of taps along W.
        symmetric: x is y, and of two sums that are each other's transpose one is enough: that of
            the earlier tap first.
    """
    sums = _Sums(x, y, vertical.shifts, horizontal.shifts, symmetric)
    blocks: dict[Block, torch.Tensor] = {}
    for (a, c), dy in vertical.shift.items():
        for (b, d), dx in horizontal.shift.items():
            if symmetric and (c, d) < (a, b):
                continue
            less_y, less_x = vertical.less[a, c], horizontal.less[b, d]
            block = sums.whole(dy, dx) * (vertical.count * horizontal.count)
            for row, less in less_y.items():
                block.sub_(sums.row(row, dy, dx), alpha=less * horizontal.count)
            for column, less in less_x.items():
                block.sub_(sums.column(column, dy, dx), alpha=less * vertical.count)
            for row, above in less_y.items():
                for column, beside in less_x.items():
                    block.add_(sums.point(row, column, dy, dx), alpha=above * beside)
            blocks[a, b, c, d] = block
    return blocks


class _Sums:
    """Products of two maps at an offset, over all of them, a row, a column, a point: each once."""

    def __init__(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        vertical: Sequence[int],
        horizontal: Sequence[int],
        symmetric: bool,
    ) -> None:
        self._x, self._y = x, y
        self._x_last, self._y_last = x.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1)
        self._vertical = [d for d in vertical if d >= 0] if symmetric else vertical
        self._horizontal = horizontal
        self._whole: dict[Pair, torch.Tensor] = {}
        self._rows: dict[Pair, dict[int, torch.Tensor]] = {}
        self._columns: dict[Pair, dict[int, torch.Tensor]] = {}
        self._points: dict[Block, torch.Tensor] = {}
        # oneDNN and cuDNN have fast gradients of weights for whole maps, but not in float64.
        self._by_convolution = x[0, 0].numel() >= _SMALL_MAP and x.dtype == torch.float32

    def whole(self, dy: int, dx: int) -> torch.Tensor:
        """Return sum x[i] y[i + d] over all positions i where both exist."""
        if self._by_convolution and not self._whole:
            self._whole = self._convolved()
        if (dy, dx) not in self._whole:
            self._whole[dy, dx] = self._multiplied(dy, dx)
        return self._whole[dy, dx]

    def row(self, row: int, dy: int, dx: int) -> torch.Tensor:
        """Return what a row of x adds to it."""
        if (row, dy) not in self._rows:
            self._rows[row, dy] = _line(
                self._x_last[:, row], self._y_last[:, row + dy], self._horizontal
            )
        return self._rows[row, dy][dx]

    def column(self, column: int, dy: int, dx: int) -> torch.Tensor:
        """Return what a column of x adds to it."""
        if (column, dx) not in self._columns:
            self._columns[column, dx] = _line(
                self._x_last[:, :, column], self._y_last[:, :, column + dx], self._vertical
            )
        return self._columns[column, dx][dy]

    def point(self, row: int, column: int, dy: int, dx: int) -> torch.Tensor:
        """Return what a single position of x adds to it."""
        key = row, column, dy, dx
        if key not in self._points:
            y = self._y_last[:, row + dy, column + dx]
            self._points[key] = self._x_last[:, row, column].T @ y
        return self._points[key]

    def _convolved(self) -> dict[Pair, torch.Tensor]:
        """All offsets at once: the gradient of a convolution's weights, one tap an offset."""
        (height, width), (rows, columns) = self._x.shape[2:], self._y.shape[2:]
        vertical, horizontal = self._vertical, self._horizontal
        margins = (
            -horizontal[0],
            horizontal[-1] + width - columns,
            -vertical[0],
            vertical[-1] + height - rows,
        )
        shape = (self._x.shape[1], self._y.shape[1], len(vertical), len(horizontal))
        sums = conv2d_weight(F.pad(self._y, margins), shape, self._x)
        return {
            (dy, dx): sums[:, :, i, j]
            for i, dy in enumerate(vertical)
            for j, dx in enumerate(horizontal)
        }

    def _multiplied(self, dy: int, dx: int) -> torch.Tensor:
        height, width = self._x.shape[2:]
        top, bottom = max(0, -dy), min(height, self._y.shape[2] - dy)
        left, right = max(0, -dx), min(width, self._y.shape[3] - dx)
        if top >= bottom or left >= right:  # a kernel reaches further than a small map
            return self._x.new_zeros(self._x.shape[1], self._y.shape[1])
        x = self._x_last[:, top:bottom, left:right]
        y = self._y_last[:, top + dy : bottom + dy, left + dx : right + dx]
        return x.reshape(-1, x.shape[3]).T @ y.reshape(-1, y.shape[3])


def _line(x: torch.Tensor, y: torch.Tensor, shifts: Sequence[int]) -> dict[int, torch.Tensor]:
    """Return sum_i x[i] y[i + d] by shift d, for x (B, L, C) and y (B, L', D)."""
    length, width = x.shape[1], y.shape[2]
    y = F.pad(y, (0, 0, -shifts[0], shifts[-1] + length - y.shape[1])).contiguous()
    # Neighbours lie one behind the other: the entries that an x meets are one stretch of memory.
    beside = y.as_strided((y.shape[0], length, len(shifts) * width), (y.shape[1] * width, width, 1))
    sums = x.reshape(-1, x.shape[2]).T @ beside.reshape(-1, len(shifts) * width)
    return {d: sums[:, i * width : (i + 1) * width] for i, d in enumerate(shifts)}
