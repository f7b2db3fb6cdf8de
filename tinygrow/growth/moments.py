"""Second-order moments of patches, summed over batches (tiny.md 1.3 to 1.6).

Between convolutions of stride and dilation 1 they come from correlations of maps, which are about
as much work as a pass through the layers; elsewhere from im2col patches, weighted by how often the
second layer reads them. Either way a bounded number of images is looked at at once; sums of im2col
products are kept in float64, sums of correlations where more than a few chunks come together.

Legend: p, p1 patch sizes (with one for a bias) of the first and second layer, q outputs and T taps
of the second.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from tinygrow.growth.correlations import (
    Axis,
    add_correlation,
    cross_axis,
    gram_axis,
    mirror,
)
from tinygrow.growth.patches import (
    Layer,
    multiplicity,
    output_size,
    padding,
    patch_size,
    patches,
    readings,
)
from tinygrow.growth.pooling import Pooling, pooled, pooled_size

_ADDITIONS = 16
"""Sums of chunks that come together in the precision of the products before they go to float64."""


class GramSum:
    """The sum over images of sum_p w_p b_p b_p^T, b_p the patch that a layer reads at position p.

    Args:
        layer: whose patches; the last entry of each is 1 if it has a bias.
        bound: numbers held at once beside the sums.
        reader: the layer behind it: w_p is how many of its output positions and taps read p. None:
            w_p is 1.
        poolings: between the two; p and b_p are then positions and patches behind them.
    """

    def __init__(
        self,
        layer: Layer,
        bound: int,
        reader: Layer | None = None,
        poolings: Sequence[Pooling] = (),
    ) -> None:
        self._layer, self._bound, self._reader = layer, bound, reader
        self._poolings = tuple(poolings)
        self._sums = _RunningSum()
        self._dense: torch.Tensor | None = None
        self._map: torch.Tensor | None = None  # the sum of all images
        self._images = 0

    @torch.no_grad()
    def add(self, x: torch.Tensor) -> None:
        """Add images (B, C, H, W) or (B, C) that the layer reads."""
        self._images += len(x)
        total = x.double().sum(0, keepdim=True)
        self._map = total if self._map is None else self._map + total
        if _correlated(self._layer, self._reader) and not self._poolings:
            axes = self._axes(x.shape[2], x.shape[3])
            size = patch_size(self._layer)
            for part in _chunks(x, 4 * x[0].numel(), self._bound):
                sums, fresh = self._sums.next(size, size, part)
                add_correlation(self._by_taps(sums), part, part, *axes, fresh=fresh, symmetric=True)
            return
        weights = self._weights(tuple(x.shape[2:])).to(x)
        hidden = output_size(self._layer, tuple(x.shape[2:]))
        size = patch_size(self._layer)
        if self._dense is None:
            self._dense = torch.zeros(size, size, dtype=torch.float64, device=x.device)
        positions = max(math.prod(hidden), weights.numel())
        for part in _chunks(x, 3 * size * positions, self._bound):
            columns = pooled(patches(self._layer, part), hidden, self._poolings)
            self._dense.add_(_flat(columns * weights) @ _flat(columns).T)

    def result(self) -> torch.Tensor:
        """Return the sum (p, p); entries channel-major, then tap, then the bias. Ask once.

        It is in the precision of the images where few chunks were added, otherwise in float64.
        """
        assert self._map is not None
        if self._dense is not None:
            return 0.5 * (self._dense + self._dense.T)
        layer, gram = self._layer, self._sums.result()
        mirror(self._by_taps(gram))
        if layer.bias is not None:
            weights = self._weights(tuple(self._map.shape[2:])).to(self._map)
            first = (patches(layer, self._map)[0, : len(gram) - 1] * weights).sum(1)
            gram[-1, :-1] = gram[:-1, -1] = first
            gram[-1, -1] = self._images * weights.sum()
        return gram

    def _by_taps(self, gram: torch.Tensor) -> torch.Tensor:
        entries, taps = self._layer.weight[0].numel(), self._layer.weight[0, 0].numel()
        return _by_taps(gram[:entries, :entries], taps, taps)

    def _axes(self, height: int, width: int) -> tuple[Axis, Axis]:
        layer = self._layer
        assert isinstance(layer, nn.Conv2d)
        hidden = output_size(layer, (height, width))
        axes = []
        for d, size in enumerate((height, width)):
            weights = [1.0] * hidden[d]
            if isinstance(self._reader, nn.Conv2d):
                (outputs,) = output_size(self._reader, hidden)[d : d + 1]
                kernel, zeros = self._reader.kernel_size[d], padding(self._reader)[d]
                weights = [
                    float(sum(0 <= p + zeros - e < outputs for e in range(kernel)))
                    for p in range(hidden[d])
                ]
            axes.append(gram_axis(size, layer.kernel_size[d], padding(layer)[d], weights))
        return axes[0], axes[1]

    def _weights(self, size: tuple[int, ...]) -> torch.Tensor:
        hidden = pooled_size(output_size(self._layer, size), self._poolings)
        if self._reader is None:
            return torch.ones(hidden).reshape(-1)
        return multiplicity(self._reader, hidden, output_size(self._reader, hidden))


class CrossSum:
    """The sum over images of sum_j (patches that the taps at output position j read) V_j.

    With `first` alone it is M: sum_j b_j V_j^T (p1, q). With `second`, whose output V is, it is N:
    the patches are those that `first` reads for each position of the map between (p, q * T).

    Args:
        first: whose patches.
        bound: numbers held at once beside the sums.
        second: the layer that reads the outputs of `first`; None: V is at the outputs of `first`.
        poolings: between the two; the patches are then those behind them.
    """

    def __init__(
        self,
        first: Layer,
        bound: int,
        second: Layer | None = None,
        poolings: Sequence[Pooling] = (),
    ) -> None:
        self._first, self._bound, self._second = first, bound, second
        self._poolings = tuple(poolings)
        self._sums = _RunningSum()
        self._dense: torch.Tensor | None = None
        self._targets: torch.Tensor | None = None  # the sum of all images
        self._hidden: tuple[int, ...] = ()

    @torch.no_grad()
    def add(self, x: torch.Tensor, target: torch.Tensor) -> None:
        """Add images (B, C, H, W) or (B, C) that `first` reads, and V (B, q, H', W') or (B, q)."""
        total = target.double().sum(0, keepdim=True)
        self._targets = total if self._targets is None else self._targets + total
        self._hidden = output_size(self._first, tuple(x.shape[2:]))
        size, width = patch_size(self._first), self._width()
        if _correlated(self._first, self._second) and not self._poolings:
            axes = self._axes(tuple(x.shape[2:]), tuple(target.shape[2:]))
            numbers = 2 * (x[0].numel() + target[0].numel())
            for part, wanted in _chunk_pairs(x, target, numbers, self._bound):
                sums, fresh = self._sums.next(size, width, part)
                weight = self._first.weight
                view = _by_taps(
                    sums[: weight[0].numel()], weight[0, 0].numel(), width // target.shape[1]
                )
                add_correlation(view, part, wanted, *axes, fresh=fresh)
            return
        if self._dense is None:
            self._dense = torch.zeros(size, width, dtype=torch.float64, device=x.device)
        positions = max(1, torch.Size(self._hidden).numel())
        for part, wanted in _chunk_pairs(
            x, target, positions * (2 * size + 2 * width), self._bound
        ):
            columns = pooled(patches(self._first, part), self._hidden, self._poolings)
            self._dense.add_(self._product(columns, wanted))

    def result(self) -> torch.Tensor:
        """Return the sum; rows channel-major, then tap, then the bias. Ask once.

        It is in the precision of the images where few chunks were added, otherwise in float64.
        """
        if self._dense is not None:
            return self._dense
        assert self._targets is not None
        cross = self._sums.result()
        if self._first.bias is not None:
            cross[-1] = self._read(self._targets)[0].sum(1)
        return cross

    def _width(self) -> int:
        assert self._targets is not None
        if self._second is None:
            return self._targets.shape[1]
        read = self._second.weight[0, 0].numel()
        if isinstance(self._second, nn.Linear):
            read = math.prod(pooled_size(self._hidden, self._poolings))
        return self._targets.shape[1] * read

    def _product(self, columns: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return sum over images and positions of (patches (B, p, L)) (readings of V)^T."""
        if isinstance(self._second, nn.Linear) and columns.shape[2] > 1:
            # Each column of the linear layer reads one position of the flattened map.
            product = columns.permute(1, 2, 0).flatten(0, 1) @ target
            return product.unflatten(0, columns.shape[1:]).transpose(1, 2).flatten(1)
        return _flat(columns) @ _flat(self._read(target)).T

    def _read(self, target: torch.Tensor) -> torch.Tensor:
        """Bring V to the positions whose patches it meets: (B, q * T, positions)."""
        if self._second is not None:
            return readings(self._second, target, pooled_size(self._hidden, self._poolings))
        return target.flatten(2) if target.ndim > 2 else target.unsqueeze(-1)

    def _axes(self, size: tuple[int, ...], outputs: tuple[int, ...]) -> tuple[Axis, Axis]:
        first, second = self._first, self._second
        assert isinstance(first, nn.Conv2d)
        axes = []
        for d in (0, 1):
            kernel, zeros = 1, 0
            if isinstance(second, nn.Conv2d):
                kernel, zeros = second.kernel_size[d], padding(second)[d]
            axes.append(
                cross_axis(
                    (size[d], self._hidden[d], outputs[d]),
                    (first.kernel_size[d], kernel),
                    (padding(first)[d], zeros),
                )
            )
        return axes[0], axes[1]


def _correlated(*layers: Layer | None) -> bool:
    """Say whether the layers are convolutions of stride and dilation 1."""
    return all(
        isinstance(layer, nn.Conv2d) and layer.stride == (1, 1) and layer.dilation == (1, 1)
        for layer in layers
        if layer is not None
    )


class _RunningSum:
    """A matrix to which chunks are added in their own precision, and now and then in float64.

    A product already sums thousands of terms in the precision of the chunk; a few of them together
    are no worse. Only where many come together their sums are kept in float64.
    """

    def __init__(self) -> None:
        self._near: torch.Tensor | None = None
        self._total: torch.Tensor | None = None
        self._additions = 0

    def next(self, rows: int, columns: int, like: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Return the matrix to add the next chunk to, and whether it holds nothing yet."""
        if self._near is None:
            self._near = torch.empty(rows, columns, dtype=like.dtype, device=like.device)
        elif self._additions == _ADDITIONS:
            self._flush()
        self._additions += 1
        return self._near, self._additions == 1

    def result(self) -> torch.Tensor:
        """Return the sum; in float64 where it was needed."""
        assert self._near is not None
        if self._total is None:
            return self._near
        self._flush()
        return self._total

    def _flush(self) -> None:
        assert self._near is not None
        if self._total is None:
            self._total = self._near.double()
        else:
            self._total += self._near
        self._additions = 0


def _by_taps(matrix: torch.Tensor, taps: int, others: int) -> torch.Tensor:
    """View a matrix without its bias as (R, T, C, E)."""
    return matrix.unflatten(0, (-1, taps)).unflatten(2, (-1, others))


def _flat(columns_BPL: torch.Tensor) -> torch.Tensor:
    return columns_BPL.transpose(0, 1).flatten(1)


def _chunks(x: torch.Tensor, numbers_an_image: int, bound: int) -> Iterator[torch.Tensor]:
    """Cut a mini-batch so that what a chunk needs fits into the bound; at least one image each."""
    yield from x.split(max(1, bound // numbers_an_image))


def _chunk_pairs(
    x: torch.Tensor, y: torch.Tensor, numbers_an_image: int, bound: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield from zip(
        _chunks(x, numbers_an_image, bound), _chunks(y, numbers_an_image, bound), strict=True
    )
