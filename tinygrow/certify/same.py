"""Whether two graphs are the same network: the same operations on the same weights.

Names do not count: both are walked from the output to the image, side by side.
"""

import numpy as np

from tinygrow.certify.document import Refusal
from tinygrow.certify.graph import Graph, Operation

TOLERANCE = 1e-6  # relative, of weights that were computed: they were rounded to float32
_CANCELLED = 1e-9  # of the largest weight: what float64 leaves where terms cancel
_DEFAULTS = {
    "group": 1,
    "auto_pad": b"NOTSET",
    "dilations": (1, 1),
    "strides": (1, 1),
    "pads": (0, 0, 0, 0),
    "alpha": 1.0,
    "beta": 1.0,
    "transA": 0,
    "transB": 0,
    "ceil_mode": 0,
    "count_include_pad": 0,
    "storage_order": 0,
    "keepdims": 1,
    "noop_with_empty_axes": 0,
    "axis": 1,
}
_SILENT = ("allowzero", "kernel_shape")  # of no effect, or implied by the weights


def require_same(expected: Graph, computed: set[str], product: Graph) -> None:
    """Refuse a product that is not the expected network.

    Args:
        expected: with float64 weights where they were computed.
        computed: names of those weights; all others must be equal bit by bit.
        product: as shipped.
    """
    waiting = [(expected.output, product.output)]
    paired: dict[str, str] = {}
    while waiting:
        ours, theirs = (
            _plain(g, v) for g, v in zip((expected, product), waiting.pop(), strict=True)
        )
        if (expected_is := ours == expected.input) or theirs == product.input:
            if not (expected_is and theirs == product.input):
                raise Refusal("the product reads the image elsewhere than it should")
            continue
        if ours in paired:
            if paired[ours] != theirs:
                raise Refusal(f"the product computes {ours!r} twice, or something else")
            continue
        paired[ours] = theirs
        first, second = expected.maker(ours), product.maker(theirs)
        if first is None or second is None:
            raise Refusal("the product ends elsewhere than it should")
        waiting += _require_same_operation(expected, first, computed, product, second)


def _require_same_operation(
    expected: Graph, first: Operation, computed: set[str], product: Graph, second: Operation
) -> list[tuple[str, str]]:
    """Return the pairs of values that two operations read."""
    where = f"{first.kind} {first.output!r}"
    if first.kind != second.kind:
        raise Refusal(f"the product has {second.kind} where {where} should be")
    if _attributes(expected, first) != _attributes(product, second):
        raise Refusal(f"the product does {where} with other attributes")
    ours, theirs = _inputs(first), _inputs(second)
    if first.kind == "Add" and all(n not in expected.weights for n in ours):
        theirs = _in_order(expected, ours, product, theirs)
    if first.kind in ("Conv", "Gemm") and len(ours) != len(theirs):
        ours, theirs = _with_zeros(expected, ours), _with_zeros(product, theirs)
    if len(ours) != len(theirs):
        raise Refusal(f"the product has another number of inputs at {where}")
    pairs = []
    for one, other in zip(ours, theirs, strict=True):
        if (one in expected.weights) != (other in product.weights):
            raise Refusal(f"the product reads a value where {where} reads a weight, or vice versa")
        if one not in expected.weights:
            pairs.append((one, other))
        elif first.kind != "Reshape":  # both are to one row, whose length the next layer needs
            _require_equal(one, expected.weights[one], one in computed, product.weights[other])
    return pairs


def _require_equal(name: str, ours: np.ndarray, computed: bool, theirs: np.ndarray) -> None:
    if ours.shape != theirs.shape:
        raise Refusal(f"{name} has the shape {theirs.shape} in the product, not {ours.shape}")
    if not computed:
        if ours.dtype != theirs.dtype or ours.tobytes() != theirs.tobytes():
            raise Refusal(f"{name} is not, bit by bit, what the steps leave of it")
        return
    scale = np.abs(ours).max(initial=0.0)
    room = TOLERANCE * np.abs(ours) + _CANCELLED * scale
    if not (np.abs(ours - theirs.astype(np.float64)) <= room).all():
        raise Refusal(f"{name} is not what the steps make of it, to {TOLERANCE:g}")


def _plain(graph: Graph, value: str) -> str:
    """Return what a value is a copy of: past operations that change nothing."""
    while True:
        maker = graph.maker(value)
        if maker is None:
            return value
        if maker.kind in ("Identity", "Dropout"):
            value = maker.inputs[0]
            continue
        source = graph.maker(_plain(graph, maker.inputs[0])) if maker.kind == "Relu" else None
        if source is not None and source.kind == "Relu":
            value = source.output
            continue
        return value


def _in_order(
    expected: Graph, ours: tuple[str, ...], product: Graph, theirs: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the operands of a sum in the order in which their makers agree."""
    if len(ours) == len(theirs) == 2:
        kinds = [_kind(expected, name) for name in ours], [_kind(product, name) for name in theirs]
        if kinds[0] != kinds[1] and kinds[0] == kinds[1][::-1]:
            return theirs[::-1]
    return theirs


def _kind(graph: Graph, value: str) -> str:
    maker = graph.maker(_plain(graph, value))
    return "" if maker is None else maker.kind


def _attributes(graph: Graph, operation: Operation) -> dict[str, object]:
    kept = {k: v for k, v in operation.attributes.items() if k not in _SILENT}
    if operation.kind in ("AveragePool", "MaxPool"):
        kept["kernel_shape"] = operation.attributes.get("kernel_shape")
        if operation.kind == "AveragePool" and not any(kept.get("pads", ())):
            kept.pop("count_include_pad", None)
    return {name: value for name, value in kept.items() if _DEFAULTS.get(name) != value}


def _inputs(operation: Operation) -> tuple[str, ...]:
    inputs = operation.inputs
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    return inputs


def _with_zeros(graph: Graph, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the inputs of a layer without its bias, if that is nothing but zeros."""
    if len(inputs) == 3 and not graph.weights[inputs[2]].any():
        return inputs[:2]
    return inputs
