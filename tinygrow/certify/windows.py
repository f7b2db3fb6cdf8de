"""Convolutions and pools as products of matrices, forwards and backwards, in numpy."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinygrow.certify.document import Refusal
from tinygrow.certify.graph import Operation

MAX_UNFOLDED = 2**27  # float64 numbers of one unfolded map: one gigabyte


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the windows of a convolution or a pool lie.

    Attributes:
        kernel: height and width.
        strides: likewise.
        pads: top, left, bottom, right.
        dilations: height and width.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]

    def out_sides(self, sides: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of what the windows give for a map of these sides."""
        result = []
        for i, side in enumerate(sides):
            span = self.dilations[i] * (self.kernel[i] - 1) + 1
            room = side + self.pads[i] + self.pads[i + 2] - span
            if room < 0:
                raise Refusal("a window is larger than its padded map")
            result.append(room // self.strides[i] + 1)
        return result[0], result[1]

    def unfold(self, x: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Map (C, H, W) to (C, kh kw, H' W'): what each window sees."""
        sides = self.out_sides((x.shape[1], x.shape[2]))
        if x.shape[0] * prod(self.kernel) * prod(sides) > MAX_UNFOLDED:
            raise Refusal("a map is too large for the checker")
        top, left, bottom, right = self.pads
        padded = np.pad(x, ((0, 0), (top, bottom), (left, right)), constant_values=fill)
        spans = tuple(d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True))
        seen = sliding_window_view(padded, spans, axis=(1, 2))
        seen = seen[:, :: self.strides[0], :: self.strides[1], :: self.dilations[0]]
        seen = seen[..., :: self.dilations[1]]
        ordered = seen.transpose(0, 3, 4, 1, 2)
        return np.ascontiguousarray(ordered).reshape(x.shape[0], prod(self.kernel), prod(sides))

    def fold(self, columns: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
        """Map (C, kh kw, H' W') to (C, H, W): unfold, transposed."""
        height, width = self.out_sides(sides)
        top, left, bottom, right = self.pads
        result = np.zeros((len(columns), sides[0] + top + bottom, sides[1] + left + right))
        parts = columns.reshape(len(columns), *self.kernel, height, width)
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                a, b = i * self.dilations[0], j * self.dilations[1]
                rows = slice(a, a + (height - 1) * self.strides[0] + 1, self.strides[0])
                cols = slice(b, b + (width - 1) * self.strides[1] + 1, self.strides[1])
                result[:, rows, cols] += parts[:, i, j]
        return result[:, top : top + sides[0], left : left + sides[1]]


def windows_of(operation: Operation, kernel: tuple[int, ...] | None = None) -> Windows:
    """Return the windows of a Conv, AveragePool or MaxPool.

    Raises:
        Refusal: its attributes are none that the checker knows.
    """
    attributes = operation.attributes
    kernel = kernel or attributes.get("kernel_shape", ())
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"", "NOTSET"):
        raise Refusal(f"{operation.kind} with auto_pad is not known to the checker")
    if attributes.get("ceil_mode", 0) != 0:
        raise Refusal(f"{operation.kind} with ceil_mode is not known to the checker")
    two = _sides(attributes.get("strides", (1, 1)), 2, 1), _sides(kernel, 2, 1)
    pads = _sides(attributes.get("pads", (0, 0, 0, 0)), 4, 0)
    dilations = _sides(attributes.get("dilations", (1, 1)), 2, 1)
    return Windows(two[1], two[0], pads, dilations)  # type: ignore[arg-type]


def _sides(value: Any, count: int, least: int) -> tuple[int, ...]:
    sides = tuple(value)
    if len(sides) != count or not all(isinstance(s, int) and least <= s < 2**16 for s in sides):
        raise Refusal(f"windows of the sides {sides[:6]} are not known to the checker")
    return sides
