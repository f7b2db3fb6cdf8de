"""Layers seen as matrices: what a layer reads, and what reads its outputs.

Shapes: B images, C channels, H W space, L positions of the layer's output map, P patch entries
(C * kh * kw, plus one for a bias), q outputs of the second layer, T taps of its kernel. A linear
layer is the case H = W = L = T = 1.
"""

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.errors import TinygrowError

Layer = nn.Conv2d | nn.Linear


def check_layer(layer: nn.Module, name: str) -> Layer:
    """Return the layer if growth can read it.

    Raises:
        TinygrowError: it is neither a Linear layer nor an ungrouped, zero-padded Conv2d.
    """
    if isinstance(layer, nn.Linear):
        return layer
    if not isinstance(layer, nn.Conv2d):
        raise TinygrowError(
            f"{name} is a {type(layer).__name__}; growth needs pairs of Conv2d or of Linear layers"
        )
    if layer.groups != 1 or layer.padding_mode != "zeros" or not _is_even(layer):
        raise TinygrowError(
            f"{name} has groups={layer.groups}, padding={layer.padding!r}"
            f" ({layer.padding_mode}); growth needs groups=1 and as much zero padding on one side"
            " as on the other"
        )
    return layer


def patch_size(layer: Layer) -> int:
    """Return P: the entries that one output position reads, with one for the bias."""
    return layer.weight[0].numel() + (layer.bias is not None)


def padding(layer: nn.Conv2d) -> tuple[int, int]:
    """Return the zeros on each side of height and width."""
    if layer.padding == "valid":
        return 0, 0
    if layer.padding == "same":
        (kh, kw), (dh, dw) = layer.kernel_size, layer.dilation
        return dh * (kh - 1) // 2, dw * (kw - 1) // 2
    assert not isinstance(layer.padding, str)
    return layer.padding[0], layer.padding[1]


def _is_even(layer: nn.Conv2d) -> bool:
    """Say whether both sides get as many zeros: `same` has one more at the end of even kernels."""
    sizes = zip(layer.kernel_size, layer.dilation, strict=True)
    return layer.padding != "same" or all(d * (k - 1) % 2 == 0 for k, d in sizes)


def taps(first: Layer, second: Layer) -> int:
    """Return T: the weights with which one output of `second` reads one output of `first`.

    The taps of a kernel; for a linear layer behind a flattened map, the positions of that map.
    """
    if isinstance(second, nn.Conv2d):
        return second.weight[0, 0].numel()
    return second.weight.shape[1] // first.weight.shape[0]


def output_size(layer: Layer, size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the layer's output map (H, W) for an input map; () for a linear layer."""
    if isinstance(layer, nn.Linear):
        return ()
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(
            size, padding(layer), layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    )


def patches(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """Return the im2col matrix B^c of the layer's input, with a last row of ones for a bias.

    Args:
        layer: whose weights, flattened to (outputs, P), multiply the patches.
        x: (B, C, H, W) for a convolution, (B, C) for a linear layer.

    Returns:
        (B, P, L): entries channel-major, then tap, as `torch.nn.functional.unfold` orders them.
    """
    if isinstance(layer, nn.Linear):
        columns = x.unsqueeze(-1)
    else:
        columns = F.unfold(
            x,
            layer.kernel_size,
            layer.dilation,
            padding(layer),
            layer.stride,
        )
    if layer.bias is None:
        return columns
    ones = columns.new_ones(columns.shape[0], 1, columns.shape[2])
    return torch.cat([columns, ones], dim=1)


def readings(second: Layer, target: torch.Tensor, hidden_size: tuple[int, ...]) -> torch.Tensor:
    """Bring a target on the second layer's outputs to the hidden positions that its taps read.

    Entry (c, t, p) is target[c, j] for the output position j whose tap t reads hidden position p,
    and zero where there is none: the product with the T_j maps of tiny.md 1.6, without forming
    them.

    Args:
        second: the layer that reads the hidden map.
        target: (B, q, H', W') or (B, q).
        hidden_size: (H, W) of the hidden map; () between linear layers.

    Returns:
        (B, q * T, L), ordered (output channel, tap).
    """
    if isinstance(second, nn.Linear):
        return target.unsqueeze(-1)
    (height, width), (out_h, out_w) = hidden_size, target.shape[2:]
    (kh, kw), (sh, sw), (dh, dw) = second.kernel_size, second.stride, second.dilation
    ph, pw = padding(second)
    batch, outputs = target.shape[:2]
    # The hidden map with its padding; what the padding reads is cut off below.
    spread = target.new_zeros(batch, outputs, kh * kw, height + 2 * ph, width + 2 * pw)
    for i in range(kh):
        for j in range(kw):
            top, left = i * dh, j * dw
            bottom, right = top + sh * (out_h - 1) + 1, left + sw * (out_w - 1) + 1
            spread[:, :, i * kw + j, top:bottom:sh, left:right:sw] = target
    inside = spread[..., ph : ph + height, pw : pw + width]
    return inside.reshape(batch, outputs * kh * kw, height * width)


def multiplicity(
    second: Layer, hidden_size: tuple[int, ...], out_size: tuple[int, ...]
) -> torch.Tensor:
    """Return (L,): how many (output position, tap) pairs read each hidden position.

    For a 3x3 kernel with stride 1 and padding 1: 9 inside, 6 at edges, 4 in corners. A linear layer
    reads each position of a flattened map once.
    """
    if isinstance(second, nn.Linear):
        return torch.ones(hidden_size).reshape(-1)
    return readings(second, torch.ones(1, 1, *out_size), hidden_size).sum(dim=(0, 1))
