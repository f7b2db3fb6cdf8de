"""Second-order moments of patches, summed over batches (tiny.md 1.3 to 1.6).

Between convolutions of stride and dilation 1 they come from correlations of maps, which are about
as much work as a pass through the layers; elsewhere from im2col patches, weighted by how often the
second layer reads them. Either way a bounded number of images is looked at at once, and products
are summed in float64.

Legend: p, p1 patch sizes (with one for a bias) of the first and second layer, q outputs and T taps
of the second.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from tinygrow.growth.correlations import Axis, Block, correlate, cross_axis, gram_axis
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

_Blocks = dict[Block, torch.Tensor]


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
        self._blocks: _Blocks = {}
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
            vertical, horizontal = self._axes(x.shape[2], x.shape[3])
            for part in _chunks(x, 4 * x[0].numel(), self._bound):
                _add(self._blocks, correlate(part, part, vertical, horizontal, symmetric=True))
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
        """Return the sum (p, p) in float64; entries channel-major, then tap, then the bias."""
        assert self._map is not None
        if self._dense is not None:
            return 0.5 * (self._dense + self._dense.T)
        layer, device = self._layer, self._map.device
        assert isinstance(layer, nn.Conv2d)
        size, width = patch_size(layer), layer.kernel_size[1]
        taps = layer.kernel_size[0] * width
        entries = layer.in_channels * taps
        gram = torch.zeros(size, size, dtype=torch.float64, device=device)
        blocks = {(a * width + b, c * width + d): x for (a, b, c, d), x in self._blocks.items()}
        for one in range(taps):
            # One write a tap: one a block would touch all of the matrix each time.
            row = [blocks[one, two] if one <= two else blocks[two, one].T for two in range(taps)]
            row[one] = 0.5 * (row[one] + row[one].T)
            gram[one:entries:taps, :entries] = torch.stack(row, 2).flatten(1)
        if layer.bias is not None:
            weights = self._weights(tuple(self._map.shape[2:])).to(self._map)
            first = (patches(layer, self._map)[0, :entries] * weights).sum(1)
            gram[-1, :-1] = gram[:-1, -1] = first
            gram[-1, -1] = self._images * weights.sum()
        return gram

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
        self._blocks: _Blocks = {}
        self._dense: torch.Tensor | None = None
        self._targets: torch.Tensor | None = None  # the sum of all images
        self._hidden: tuple[int, ...] = ()

    @torch.no_grad()
    def add(self, x: torch.Tensor, target: torch.Tensor) -> None:
        """Add images (B, C, H, W) or (B, C) that `first` reads, and V (B, q, H', W') or (B, q)."""
        total = target.double().sum(0, keepdim=True)
        self._targets = total if self._targets is None else self._targets + total
        self._hidden = output_size(self._first, tuple(x.shape[2:]))
        if _correlated(self._first, self._second) and not self._poolings:
            vertical, horizontal = self._axes(tuple(x.shape[2:]), tuple(target.shape[2:]))
            numbers = 2 * (x[0].numel() + target[0].numel())
            for part, wanted in _chunk_pairs(x, target, numbers, self._bound):
                _add(self._blocks, correlate(wanted, part, vertical, horizontal))
            return
        size, width = patch_size(self._first), self._width()
        if self._dense is None:
            self._dense = torch.zeros(size, width, dtype=torch.float64, device=x.device)
        positions = max(1, torch.Size(self._hidden).numel())
        for part, wanted in _chunk_pairs(
            x, target, positions * (2 * size + 2 * width), self._bound
        ):
            columns = pooled(patches(self._first, part), self._hidden, self._poolings)
            self._dense.add_(self._product(columns, wanted))

    def result(self) -> torch.Tensor:
        """Return the sum in float64; rows channel-major, then tap, then the bias."""
        if self._dense is not None:
            return self._dense
        first, targets = self._first, self._targets
        assert isinstance(first, nn.Conv2d) and targets is not None
        taps, reads = first.kernel_size[0] * first.kernel_size[1], self._width() // targets.shape[1]
        entries = first.in_channels * taps
        cross = torch.empty(
            patch_size(first), self._width(), dtype=torch.float64, device=targets.device
        )
        width = self._second.kernel_size[1] if isinstance(self._second, nn.Conv2d) else 1
        blocks = {
            (c * first.kernel_size[1] + d, a * width + b): x
            for (a, b, c, d), x in self._blocks.items()
        }
        for tap in range(taps):
            row = [blocks[tap, read].T for read in range(reads)]
            cross[tap:entries:taps] = torch.stack(row, 2).flatten(1)
        if first.bias is not None:
            cross[-1] = self._read(targets)[0].sum(1)
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
                    (outputs[d], self._hidden[d], size[d]),
                    (kernel, first.kernel_size[d]),
                    (zeros, padding(first)[d]),
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


def _add(sums: _Blocks, blocks: _Blocks) -> None:
    for key, block in blocks.items():
        if key in sums:
            sums[key].add_(block)
        else:
            sums[key] = block.double()


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
