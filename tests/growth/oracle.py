"""Slow, obvious float64 references for growth: loops over images, positions and taps.

Nothing of `tinygrow.growth` is used here. A linear layer is written as a 1x1 convolution of a 1x1
map. Legend: n images, p patch entries (channel-major, then tap, then one for a bias), q outputs,
(c, e) output channel and tap of the second kernel, j output position, i hidden position.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import nn

Pair = tuple[int, int]
Array = np.ndarray


@dataclass(frozen=True)
class Geometry:
    """How a layer reads its input."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    bias: bool = True

    @classmethod
    def of(cls, layer: nn.Module) -> "Geometry":
        if isinstance(layer, nn.Linear):
            return cls(bias=layer.bias is not None)
        return cls(
            layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.bias is not None
        )

    def reads(self, position: Pair, tap: Pair) -> Pair:
        """Return where in the input (perhaps in its padding) a tap looks."""
        y, x = (
            position[d] * self.stride[d] - self.padding[d] + tap[d] * self.dilation[d]
            for d in (0, 1)
        )
        return y, x

    def positions(self, size: Pair) -> list[Pair]:
        """Return the output positions: those whose whole window lies in the padded input."""
        ends = []
        for d in (0, 1):
            count = 0
            last_tap = (self.kernel[d] - 1) * self.dilation[d]
            while count * self.stride[d] + last_tap < size[d] + 2 * self.padding[d]:
                count += 1
            ends.append(count)
        return list(product(range(ends[0]), range(ends[1])))

    def taps(self) -> list[Pair]:
        return list(product(range(self.kernel[0]), range(self.kernel[1])))

    def output_size(self, size: Pair) -> Pair:
        last = self.positions(size)[-1]
        return last[0] + 1, last[1] + 1


def as_maps(x: torch.Tensor) -> Array:
    """Return float64 (n, C, H, W); features of a linear layer become 1x1 maps."""
    array = x.detach().double().numpy()
    return array if array.ndim == 4 else array[:, :, None, None]


def im2col(x: Array, geometry: Geometry) -> Array:
    """Return (n, p, positions)."""
    n, channels, height, width = x.shape
    positions, taps = geometry.positions((height, width)), geometry.taps()
    rows = channels * len(taps) + geometry.bias
    result = np.zeros((n, rows, len(positions)))
    for example, (column, position) in product(range(n), enumerate(positions)):
        for channel, (t, tap) in product(range(channels), enumerate(taps)):
            y, x_ = geometry.reads(position, tap)
            if 0 <= y < height and 0 <= x_ < width:
                value = x[example, channel, y, x_]
                result[example, channel * len(taps) + t, column] = value
        if geometry.bias:
            result[example, -1, column] = 1.0
    return result


def reading_maps(second: Geometry, hidden: Pair) -> Array:
    """Return T (j, e, i): 1 where tap e at output position j reads hidden position i."""
    positions, taps = second.positions(hidden), second.taps()
    maps = np.zeros((len(positions), len(taps), hidden[0] * hidden[1]))
    for (j, position), (e, tap) in product(enumerate(positions), enumerate(taps)):
        y, x = second.reads(position, tap)
        if 0 <= y < hidden[0] and 0 <= x < hidden[1]:
            maps[j, e, y * hidden[1] + x] = 1.0
    return maps


def neuron_moments(
    x: torch.Tensor, target: torch.Tensor, first: nn.Module, second: nn.Module
) -> tuple[Array, Array]:
    """Return S (p, p) and N (p, q * taps) from the definition with T_j (tiny.md 1.6)."""
    x_maps, v = as_maps(x), as_maps(target)
    g1, g2 = Geometry.of(first), Geometry.of(second)
    columns = im2col(x_maps, g1)
    maps = reading_maps(g2, g1.output_size(x_maps.shape[2:]))
    n, p, q, taps = len(x_maps), columns.shape[1], v.shape[1], maps.shape[1]
    v = v.reshape(n, q, -1)
    S, N = np.zeros((p, p)), np.zeros((p, q, taps))
    for i, j in product(range(n), range(len(maps))):
        read = columns[i] @ maps[j].T  # (p, taps)
        S += read @ read.T
        N += read[:, None, :] * v[i, :, j][None, :, None]
    return S / n, N.reshape(p, -1) / n


def update_moments(
    h: torch.Tensor, target: torch.Tensor, second: nn.Module
) -> tuple[Array, Array, float]:
    """Return S1 (p1, p1), M (p1, q) and the power of V (tiny.md 1.3)."""
    v = as_maps(target)
    n, q = v.shape[:2]
    v = v.reshape(n, q, -1)
    columns = im2col(as_maps(h), Geometry.of(second))
    size = columns.shape[1]
    S1, M, power = np.zeros((size, size)), np.zeros((size, q)), 0.0
    for i, j in product(range(n), range(columns.shape[2])):
        b, wanted = columns[i, :, j], v[i, :, j]
        S1 += np.outer(b, b)
        M += np.outer(b, wanted)
        power += wanted @ wanted
    return S1 / n, M / n, power / n


def projected(h: torch.Tensor, target: torch.Tensor, second: nn.Module, delta: Array) -> Array:
    """Return V - delta b at every position, in the shape of the target."""
    columns = im2col(as_maps(h), Geometry.of(second))
    result = as_maps(target).reshape(len(columns), -1, columns.shape[2]).copy()
    for i, j in product(range(len(columns)), range(columns.shape[2])):
        result[i, :, j] -= delta @ columns[i, :, j]
    return result.reshape(target.shape)


def inner(a: torch.Tensor | Array, b: torch.Tensor | Array) -> float:
    """Return (1/n) sum over images of the inner product."""
    a, b = (np.asarray(t.detach() if isinstance(t, torch.Tensor) else t) for t in (a, b))
    return float((a * b).sum() / len(a))


def inverse_root(S: Array) -> Array:
    """Return S^(-1/2) of a positive definite matrix."""
    values, vectors = np.linalg.eigh(S)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def rank_k_product(S: Array, N: Array, count: int) -> tuple[Array, Array]:
    """Return sum_k alpha_k omega_k^T (p, q * taps) by S^(-1/2) and SVD, and all lambda."""
    root = inverse_root(S)
    u, values, vt = np.linalg.svd(root @ N)
    product_ = np.zeros(N.shape)
    for k in range(count):
        alpha = np.sqrt(values[k]) * root @ u[:, k]
        omega = np.sqrt(values[k]) * vt[k]
        product_ += np.outer(alpha, omega)
    return product_, values
