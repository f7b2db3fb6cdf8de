"""The affine operations of a graph as maps that run forwards and backwards."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from tinygrow.certify.document import Refusal
from tinygrow.certify.graph import Graph, Operation
from tinygrow.certify.windows import windows_of

_MEANS = ("AveragePool", "GlobalAveragePool", "ReduceMean")
AFFINE = ("Conv", "Gemm", "MatMul", "Mul", "Add", *_MEANS)
"""Kinds of operations that are affine where they read one value."""


@dataclass(frozen=True, slots=True)
class LinearMap:
    """y = W x + b of one operation.

    Attributes:
        forward: maps x by W, by its positive part, its negative part, or its absolute values:
            `forward(x, part)` with part `all`, `positive`, `negative`, `absolute`.
        backward: maps coefficients on y, (n, *shape of y), to those on x.
        bias: of the shape of y.
        terms: products behind one number of y, at most.
    """

    forward: Callable[[np.ndarray, str], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]
    bias: np.ndarray
    terms: int


_PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all": lambda w: w,
    "positive": lambda w: np.maximum(w, 0),
    "negative": lambda w: np.minimum(w, 0),
    "absolute": np.abs,
}


def linear_map(graph: Graph, operation: Operation, shape: tuple[int, ...]) -> LinearMap:
    """Return an affine operation on a value of this shape.

    Raises:
        Refusal: it is of a form that the checker does not know.
    """
    if operation.kind in ("Gemm", "MatMul"):
        return _dense(graph, operation, shape)
    if operation.kind == "Conv":
        return _convolution(graph, operation, shape)
    if operation.kind in ("Mul", "Add"):
        return _each_number(graph, operation, shape)
    return _average(graph, operation, shape)


def _dense(graph: Graph, operation: Operation, shape: tuple[int, ...]) -> LinearMap:
    matrix, bias = dense_weights(graph, operation)
    if shape != (matrix.shape[1],):
        raise Refusal(f"a dense layer of {matrix.shape[1]} inputs reads the shape {shape}")
    return LinearMap(
        lambda x, part: _PARTS[part](matrix) @ x, lambda c: c @ matrix, bias, matrix.shape[1]
    )


def dense_weights(graph: Graph, operation: Operation) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (outputs, inputs) and bias of a Gemm or MatMul, float64."""
    attributes = operation.attributes
    weight = graph.weights.get(operation.inputs[1])
    if weight is None or weight.ndim != 2 or operation.inputs[0] in graph.weights:
        raise Refusal(f"a {operation.kind} of two values is not known to the checker")
    plain = (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
    if any(attributes.get(name, default) != default for name, default in plain):
        raise Refusal("a Gemm that scales or transposes its input is not known to the checker")
    transposed = operation.kind == "Gemm" and attributes.get("transB", 0) == 1
    matrix = (weight if transposed else weight.T).astype(np.float64)
    return matrix, _bias(graph, operation, len(matrix))


def _convolution(graph: Graph, operation: Operation, shape: tuple[int, ...]) -> LinearMap:
    weight = graph.weights.get(operation.inputs[1])
    if weight is None or weight.ndim != 4 or len(shape) != 3:
        raise Refusal("a convolution that is not one of maps by weights is not known")
    groups = operation.attributes.get("group", 1)
    if groups < 1 or shape[0] != groups * weight.shape[1] or len(weight) % groups:
        raise Refusal(f"a convolution of {weight.shape[1] * groups} channels reads {shape[0]}")
    windows = windows_of(operation, weight.shape[2:])
    sides = windows.out_sides((shape[1], shape[2]))
    matrix = weight.astype(np.float64).reshape(groups, len(weight) // groups, -1)

    def forward(x: np.ndarray, part: str) -> np.ndarray:
        columns = windows.unfold(x).reshape(groups, matrix.shape[2], -1)
        return (_PARTS[part](matrix) @ columns).reshape(len(weight), *sides)

    def backward(c: np.ndarray) -> np.ndarray:
        grouped = c.reshape(len(c), groups, matrix.shape[1], -1)
        columns = (matrix.transpose(0, 2, 1) @ grouped).reshape(len(c) * shape[0], -1, prod(sides))
        return windows.fold(columns, (shape[1], shape[2])).reshape(len(c), *shape)

    bias = np.broadcast_to(
        _bias(graph, operation, len(weight))[:, None, None], (len(weight), *sides)
    )
    return LinearMap(forward, backward, bias, matrix.shape[2])


def _each_number(graph: Graph, operation: Operation, shape: tuple[int, ...]) -> LinearMap:
    constant = constant_of(graph, operation).astype(np.float64)
    try:
        full = np.broadcast_to(constant, (1, *shape))[0]
    except ValueError as error:
        raise Refusal(f"a constant of the shape {constant.shape} on {shape}") from error
    factor = full if operation.kind == "Mul" else np.ones(shape)
    bias = np.zeros(shape) if operation.kind == "Mul" else full
    return LinearMap(lambda x, part: _PARTS[part](factor) * x, lambda c: c * factor, bias, 1)


def _average(graph: Graph, operation: Operation, shape: tuple[int, ...]) -> LinearMap:
    if len(shape) != 3:
        raise Refusal(f"{operation.kind} of the shape {shape} is not known to the checker")
    if operation.kind == "AveragePool":
        windows = windows_of(operation)
        sides = windows.out_sides((shape[1], shape[2]))
        padding = operation.attributes.get("count_include_pad", 0) == 0
        seen = np.ones((1, *shape[1:])) if padding else None
        counts = (
            np.full(prod(sides), float(prod(windows.kernel)))
            if seen is None
            else windows.unfold(seen)[0].sum(axis=0)
        )
        return LinearMap(
            lambda x, part: (
                np.zeros((len(x), *sides))
                if part == "negative"
                else (windows.unfold(x).sum(axis=1) / counts).reshape(len(x), *sides)
            ),
            lambda c: windows.fold(
                np.repeat(
                    (c.reshape(-1, prod(sides)) / counts)[:, None], prod(windows.kernel), axis=1
                ),
                (shape[1], shape[2]),
            ).reshape(len(c), *shape),
            np.zeros((shape[0], *sides)),
            prod(windows.kernel) + 1,
        )
    keeps = operation.kind == "GlobalAveragePool" or _means_of_maps(graph, operation)
    out = (shape[0], 1, 1) if keeps else (shape[0],)
    area = shape[1] * shape[2]
    return LinearMap(
        lambda x, part: (x.sum(axis=(1, 2)) / area * (part != "negative")).reshape(out),
        lambda c: np.broadcast_to(c.reshape(*c.shape[:2], 1, 1) / area, (len(c), *shape)).copy(),
        np.zeros(out),
        area + 1,
    )


def _means_of_maps(graph: Graph, operation: Operation) -> bool:
    """Say whether a ReduceMean over height and width keeps them as sides of 1; refuse others."""
    axes = operation.attributes.get("axes")
    if len(operation.inputs) > 1:
        axes = tuple(graph.weights.get(operation.inputs[1], np.zeros(0)).reshape(-1).tolist())
    if axes is None or sorted(a % 4 for a in axes) != [2, 3]:
        raise Refusal(f"a mean over the axes {axes} is not known to the checker")
    return bool(operation.attributes.get("keepdims", 1))


def require_flat(graph: Graph, operation: Operation, shape: tuple[int, ...]) -> None:
    """Refuse a Flatten or Reshape that does more than put the numbers of an image in one row."""
    if operation.kind == "Flatten":
        fits = operation.attributes.get("axis", 1) == 1
    else:
        target = graph.weights.get(operation.inputs[1], np.zeros(0)).reshape(-1).tolist()
        fits = len(target) == 2 and (target[1] == prod(shape) or target == [0, -1])
    if not fits:
        raise Refusal(f"a {operation.kind} that is not to one row is not known to the checker")


def _bias(graph: Graph, operation: Operation, count: int) -> np.ndarray:
    if len(operation.inputs) < 3 or not operation.inputs[2]:
        return np.zeros(count)
    bias = graph.weights.get(operation.inputs[2])
    if bias is None or bias.shape != (count,):
        raise Refusal(f"a {operation.kind} whose bias is not one number an output is not known")
    return bias.astype(np.float64)


def constant_of(graph: Graph, operation: Operation) -> np.ndarray:
    """Return the one weight among the two inputs of an operation."""
    found = [graph.weights[name] for name in operation.inputs if name in graph.weights]
    if len(found) != 1 or len(operation.inputs) != 2:
        raise Refusal(f"a {operation.kind} of that form is not known to the checker")
    return found[0]
