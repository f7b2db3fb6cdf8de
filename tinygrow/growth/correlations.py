"""Sums over pairs of taps as correlations of maps, without im2col (tiny.md 1.6).

Two taps that read maps at a fixed offset from each other multiply the same numbers whichever taps
they are, but for positions near the border. So each offset is summed once, over spans of positions
that all pairs of taps at this offset count alike, and a pair adds up the spans with its weights.
Between the taps of a 3x3 kernel there are 25 offsets, 13 up to symmetry, in place of 81 pairs; most
have a single span.

Small maps have rectangles of spans, which matrix products sum. On large maps the whole map takes
the place of the longest span, as one convolution sums it at all offsets; what the other spans count
less is taken off again.

Shapes: B images, R and C channels of the rows' and the columns' map, H W space, T and E taps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import isqrt

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_weight

Pair = tuple[int, int]
"""A tap of the rows' map and one of the columns'."""

_LARGE_MAP = 128
"""Positions from which on one convolution is faster than products of rectangles (measured)."""
_BLOCK_NUMBERS = 6 * 2**20
"""Of the blocks that are put together before they are written (measured: the cache)."""


@dataclass(frozen=True, slots=True)
class Span:
    """Positions along an axis.

    Attributes:
        start: the first.
        stop: the one behind the last.
        weights: how often a pair of taps counts them, by pair.
    """

    start: int
    stop: int
    weights: dict[Pair, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """How pairs of taps meet along one axis: pair (t, e) sums weight x[i] y[i + shift] over i.

    Attributes:
        taps: of the rows' map and of the columns'.
        spans: of positions i of the rows' map, by shift. They do not overlap.
        nested: the same sums with all positions as the first span of each shift.
    """

    taps: Pair
    spans: dict[int, list[Span]]
    nested: dict[int, list[Span]]


def gram_axis(size: int, kernel: int, padding: int, weights: Sequence[float]) -> Axis:
    """Return the axis of sum_p weights[p] x[p - padding + a] x[p - padding + b].

    Args:
        size: of x.
        kernel: taps.
        padding: zeros before x.
        weights: of each position p of the layer's output.
    """

    def weight(i: int, pair: Pair) -> float:
        p = i + padding - pair[0]
        return weights[p] if 0 <= p < len(weights) else 0.0

    pairs = {(a, b): b - a for a in range(kernel) for b in range(kernel)}
    return _axis((size, size), (kernel, kernel), pairs, weight)


def cross_axis(sizes: tuple[int, int, int], kernels: Pair, paddings: Pair) -> Axis:
    """Return the axis of sum_j x[j + e - padding_2 + t - padding_1] v[j] for pairs (t, e).

    Args:
        sizes: of the first layer's input x, of the hidden map, of the second layer's output v.
        kernels: taps of the first layer (t) and of the second (e).
        paddings: of the first layer and of the second.
    """
    size, hidden, outputs = sizes

    def weight(i: int, pair: Pair) -> float:
        # The position of the hidden map; a tap that reads its padding counts nothing.
        return float(0 <= i - pair[0] + paddings[0] < hidden)

    pairs = {(t, e): sum(paddings) - t - e for t in range(kernels[0]) for e in range(kernels[1])}
    return _axis((size, outputs), kernels, pairs, weight)


def add_correlation(
    out: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    vertical: Axis,
    horizontal: Axis,
    *,
    fresh: bool,
    symmetric: bool = False,
) -> None:
    """Add the sum of each pair of taps.

    Args:
        out: (R, T, C, E) of any strides.
        x: (B, R, H, W).
        y: (B, C, H', W').
        vertical: pairs of taps along H.
        horizontal: pairs of taps along W.
        fresh: `out` holds nothing yet.
        symmetric: x is y. Of two blocks of channels that mirror each other the first alone is
            written; `mirror` does the rest.
    """
    maps = _Maps(x, y)
    offsets = _offsets(vertical, horizontal, nested=maps.large)
    # Of two offsets that mirror each other the later one.
    later = [offset for offset in offsets if offset.shift >= (0, 0)]
    tiles = _tiles(out)
    work = _Workspace(out, tiles, max(len(offset.rectangles) for offset in offsets))
    for rows, columns in tiles:
        if symmetric and columns.start < rows.start:
            continue
        if symmetric and columns.start == rows.start:
            blocks = work.fill(maps, rows, columns, later)
            _mirror_taps(blocks)
        else:
            blocks = work.fill(maps, rows, columns, offsets)
        part, blocks = out[rows, :, columns], blocks.permute(2, 0, 3, 1)
        if fresh:
            part.copy_(blocks)
        else:
            part.add_(blocks)


def mirror(out: torch.Tensor) -> None:
    """Complete a symmetric sum (R, T, R, T) of `add_correlation`."""
    for rows, columns in _tiles(out):
        if columns.start < rows.start:
            out[rows, :, columns] = out[columns, :, rows].permute(2, 3, 0, 1)


def _axis(
    sizes: Pair, taps: Pair, pairs: dict[Pair, int], weight: Callable[[int, Pair], float]
) -> Axis:
    spans: dict[int, list[Span]] = {}
    nested: dict[int, list[Span]] = {}
    for shift in sorted(set(pairs.values())):
        met = [pair for pair, step in pairs.items() if step == shift]
        runs: list[Span] = []
        for i in range(max(0, -shift), min(sizes[0], sizes[1] - shift)):
            here = {pair: weight(i, pair) for pair in met}
            if runs and runs[-1].weights == here:
                runs[-1] = Span(runs[-1].start, i + 1, here)
            else:
                runs.append(Span(i, i + 1, here))
        spans[shift] = [run for run in runs if any(run.weights.values())]
        nested[shift] = []
        if spans[shift]:
            longest = max(spans[shift], key=lambda run: run.stop - run.start)
            nested[shift] = [Span(runs[0].start, runs[-1].stop, longest.weights)] + [
                Span(run.start, run.stop, {p: run.weights[p] - longest.weights[p] for p in met})
                for run in runs
                if run.weights != longest.weights
            ]
    return Axis(taps, spans, nested)


@dataclass(frozen=True, slots=True)
class _Offset:
    """What is summed at an offset of the two maps, and which blocks it goes to.

    Attributes:
        shift: from a position of the rows' map to one of the columns' (vertical, horizontal).
        rectangles: of positions of the rows' map.
        weights: of the rectangles, by (tap of the rows' map, tap of the columns').
    """

    shift: Pair
    rectangles: list[tuple[Span, Span]]
    weights: dict[Pair, list[float]]


class _Maps:
    """The two maps, and the products of channels at all the positions of a rectangle."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        # oneDNN and cuDNN have fast gradients of weights for whole maps, but not in float64.
        self.large = x[0, 0].numel() >= _LARGE_MAP and x.dtype == torch.float32
        self.x, self.y = x, y
        self._x = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        self._y = y.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)

    def convolve(
        self, rows: slice, columns: slice, shifts: Sequence[Pair]
    ) -> dict[Pair, torch.Tensor]:
        """Return the sums (R, C) over all positions by shift: the gradient of a convolution."""
        x, y = self.x[:, rows], self.y[:, columns]
        (height, width), (below, beside) = x.shape[2:], y.shape[2:]
        (top, bottom), (left, right) = ((min(d), max(d)) for d in zip(*shifts, strict=True))
        margins = -left, right + width - beside, -top, bottom + height - below
        shape = (x.shape[1], y.shape[1], bottom - top + 1, right - left + 1)
        sums = conv2d_weight(F.pad(y, margins), shape, x)
        return {(dy, dx): sums[:, :, dy - top, dx - left] for dy, dx in shifts}

    def multiply(
        self,
        out: torch.Tensor,
        rows: slice,
        columns: slice,
        rectangle: tuple[Span, Span],
        shift: Pair,
    ) -> None:
        """Write the sum over a rectangle of positions to `out` (R, C)."""
        (top, bottom), (left, right) = ((span.start, span.stop) for span in rectangle)
        dy, dx = shift
        x = self._x[:, top:bottom, left:right, rows]
        y = self._y[:, top + dy : bottom + dy, left + dx : right + dx, columns]
        torch.mm(x.reshape(-1, x.shape[3]).T, y.reshape(-1, y.shape[3]), out=out)


class _Workspace:
    """Memory for the blocks of some channels, taken once: fresh pages cost as much as the sums."""

    def __init__(self, out: torch.Tensor, tiles: list[tuple[slice, slice]], terms: int) -> None:
        most = max((r.stop - r.start) * (c.stop - c.start) for r, c in tiles)
        self._blocks = out.new_empty(out.shape[1], out.shape[3], most)
        self._sums = out.new_empty(terms, most)

    def fill(
        self, maps: _Maps, rows: slice, columns: slice, offsets: list[_Offset]
    ) -> torch.Tensor:
        """Return the blocks (T, E, R, C) that these offsets go to, in memory that is used again."""
        size = torch.Size([rows.stop - rows.start, columns.stop - columns.start])
        blocks = self._blocks[..., : size.numel()].unflatten(2, size)
        whole: dict[Pair, torch.Tensor] = {}
        if maps.large:
            whole = maps.convolve(rows, columns, [offset.shift for offset in offsets])
        if not all(offset.rectangles for offset in offsets):
            blocks.zero_()  # a kernel reaches further than the map: some taps meet nowhere
        for offset in offsets:
            sums = self._sums[: len(offset.rectangles), : size.numel()].unflatten(1, size)
            for k, rectangle in enumerate(offset.rectangles):
                if k == 0 and whole:
                    sums[0] = whole[offset.shift]
                else:
                    maps.multiply(sums[k], rows, columns, rectangle, offset.shift)
            for pair, weights in offset.weights.items():
                torch.mul(sums[0], weights[0], out=blocks[pair])
                for one, weight in zip(sums[1:], weights[1:], strict=True):
                    if weight:
                        blocks[pair].add_(one, alpha=weight)
        return blocks


def _mirror_taps(blocks: torch.Tensor) -> None:
    """Complete blocks (T, T, R, R) of which those of the earlier tap first are there."""
    for tap in range(len(blocks)):
        blocks[tap, tap] = 0.5 * (blocks[tap, tap] + blocks[tap, tap].T)
        for later in range(tap + 1, len(blocks)):
            blocks[later, tap] = blocks[tap, later].T


def _offsets(vertical: Axis, horizontal: Axis, *, nested: bool) -> list[_Offset]:
    """Return what to sum, by ascending offset."""
    offsets = []
    for dy, over in (vertical.nested if nested else vertical.spans).items():
        for dx, across in (horizontal.nested if nested else horizontal.spans).items():
            rectangles = [(down, along) for down in over for along in across]
            weights = {}
            if rectangles:
                for p, q in product(over[0].weights, across[0].weights):
                    block = (
                        p[0] * horizontal.taps[0] + q[0],
                        p[1] * horizontal.taps[1] + q[1],
                    )
                    weights[block] = [v.weights[p] * h.weights[q] for v, h in rectangles]
            offsets.append(_Offset((dy, dx), rectangles, weights))
    return offsets


def _tiles(out: torch.Tensor) -> list[tuple[slice, slice]]:
    """Cut the channels of rows and columns into blocks whose sums for all taps fit the cache."""
    channels, taps, others, reads = out.shape
    side = max(16, isqrt(_BLOCK_NUMBERS // (taps * reads)))
    return list(product(_cut(channels, side), _cut(others, side)))


def _cut(length: int, most: int) -> list[slice]:
    count = -(-length // most)
    ends = [length * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]
