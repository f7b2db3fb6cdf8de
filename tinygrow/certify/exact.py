"""Interval bounds of dense layers in whole numbers: nothing is rounded, so that zero is zero.

A float32 number is a whole number of 2^-149, the smallest there is; after k layers everything is a
whole number of 2^-(149 k + s), where s does for the ends of the domain.
"""

import math
from fractions import Fraction

import numpy as np

from tinygrow.certify.bounds import PASSING, Box
from tinygrow.certify.graph import Graph
from tinygrow.certify.linear import dense_weights

MOST = 2**22  # products: some seconds
_BITS = 149


def exact_bounds(graph: Graph, image: str, box: Box) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return lower and upper bounds of the outputs of dense layers that nothing else precedes.

    Args:
        graph: the network.
        image: name of the normalised image.
        box: its bounds.
    """
    unit = max(_bits_of(box.lower), _bits_of(box.upper))
    found = {image: (_whole(box.lower, unit), _whole(box.upper, unit), unit)}
    result, left = {}, MOST
    for operation in graph.operations:
        read = found.get(operation.inputs[0]) if operation.inputs else None
        if read is None:
            continue
        low, high, unit = read
        if operation.kind in (*PASSING, "Flatten", "Reshape"):
            flat = operation.kind not in PASSING
            ends = (low.reshape(-1), high.reshape(-1)) if flat else (low, high)
        elif operation.kind == "Relu":
            ends = np.maximum(low, 0), np.maximum(high, 0)
        elif operation.kind in ("Gemm", "MatMul"):
            matrix, bias = dense_weights(graph, operation)
            left -= matrix.size
            if left < 0 or matrix.shape[1:] != low.shape:
                break
            weight, shift = _whole(matrix, _BITS), _whole(bias, unit + _BITS)
            plus, minus = np.maximum(weight, 0), np.minimum(weight, 0)
            ends = plus @ low + minus @ high + shift, plus @ high + minus @ low + shift
            unit += _BITS
            result[operation.output] = (_floats(ends[0], unit, -1), _floats(ends[1], unit, 1))
        else:
            continue
        found[operation.output] = (*ends, unit)
    return result


def _bits_of(values: np.ndarray) -> int:
    return max(float(v).as_integer_ratio()[1].bit_length() - 1 for v in values.reshape(-1))


def _whole(values: np.ndarray, bits: int) -> np.ndarray:
    """Return numbers in units of 2^-bits."""
    result = np.empty(values.size, dtype=object)
    for i, value in enumerate(values.reshape(-1).tolist()):
        above, below = value.as_integer_ratio()
        result[i] = above * ((1 << bits) // below)
    return result.reshape(values.shape)


def _floats(values: np.ndarray, bits: int, direction: int) -> np.ndarray:
    """Return the nearest float64 that is not inside."""
    result = []
    for value in values.tolist():
        exact = Fraction(value, 1 << bits)
        near = float(exact)
        inside = near < exact if direction > 0 else near > exact
        result.append(math.nextafter(near, direction * math.inf) if inside else near)
    return np.array(result)
