"""Is an int8 product made as it should be: what is in 8 bits, and by which steps?"""

import json

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tinygrow.products.gate.check import Check, judge, skipped
from tinygrow.products.gate.subject import Subject

Values = NDArray[np.float64]


def quantization(subject: Subject) -> Check:
    """Activations are unsigned, weights signed, symmetric, per channel; some layer is in int8."""
    if subject.precision != "int8":
        return skipped("quantization", f"{subject.precision} has no steps")
    stored = {t.name: numpy_helper.to_array(t) for t in subject.model.graph.initializer}
    problems: list[str] = []
    activations = channels = 0
    for node in subject.model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        source, scale, zero = node.input[0], stored[node.input[1]], stored[node.input[2]]
        if not (np.isfinite(scale) & (scale > 0)).all():
            problems.append(f"a scale of {source} is not positive")
        if source not in stored:
            activations += node.op_type == "QuantizeLinear"
            if zero.dtype != np.uint8:
                problems.append(f"{source} is {zero.dtype}, not uint8")
        elif (zero != 0).any() or zero.dtype not in (np.int8, np.int32):
            problems.append(f"{source} is {zero.dtype} with zero points other than 0")
        else:
            channels += scale.size > 1
    told = json.loads(subject.metadata.get("quantization", "{}"))
    if not channels or not activations:
        problems.append("no layer is quantised")
    numbers = {
        "activations": activations,
        "tensors_per_channel": channels,
        "float_units": len(told.get("float_units", [])),
    }
    if len(problems) > 3:
        problems[3:] = [f"and {len(problems) - 3} more"]
    return judge("quantization", problems, numbers)


def dequantized(model: onnx.ModelProto) -> dict[str, tuple[Values, Values]]:
    """Return values and steps of each stored tensor that the graph dequantises, by its old name."""
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            values, scale, zero = (stored[name].astype(np.float64) for name in node.input)
            if scale.size > 1:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % values.ndim
                shape = [-1 if i == axis else 1 for i in range(values.ndim)]
                scale, zero = scale.reshape(shape), zero.reshape(shape)
            name = node.input[0].removesuffix("_quantized")
            found[name] = ((values - zero) * scale, scale)
    return found
