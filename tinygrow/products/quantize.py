"""The int8 product, made from the fp32 file: static QDQ, weights per channel, activations uint8.

Unsigned activations and signed weights are what the kernels of ONNX Runtime for CPUs are fast with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from tinygrow.errors import TinygrowError
from tinygrow.products.graph import normalization_nodes, sort_nodes
from tinygrow.products.quiet import onnxruntime_tools
from tinygrow.products.ranges import Range

# What is quantised for its own sake: the work is in the layers, and the additions of skips between
# them would else take their values to float and back.
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
UNITS = (*LAYERS, "Add")
# What passes 8-bit values on as they are. Averages, products of gates, norms and the like stay
# float: they are cheap, and coarse steps cost them most.
_PASSING = ("Clip", "Flatten", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True, slots=True)
class Unit:
    """A node that may be quantised, and the name that a user knows it by."""

    node: str
    name: str


def units(model: onnx.ModelProto) -> list[Unit]:
    """Return what may be quantised, in the order of the graph; the normalisation is not."""
    head = {node.name for node in normalization_nodes(model.graph)}
    stored = {tensor.name for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type in UNITS and node.name not in head:
            weights = [name for name in node.input if name in stored]
            # An addition of a constant, such as a bias of its own, is none of a skip.
            if node.op_type != "Add" or not weights:
                name = weights[0].removesuffix(".weight") if weights else node.name
                found.append(Unit(node.name, name))
    return found


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with the type of every value, as calibration and quantisation need it."""
    typed = onnx.shape_inference.infer_shapes(model, data_prop=True)
    # The quantiser would else write the model to a file and infer its shapes again.
    typed.metadata_props.add(key="onnx.infer", value="onnxruntime.quant")
    return typed


def to_int8(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    chosen: Sequence[Unit],
    *,
    reduce_range: bool,
) -> onnx.ModelProto:
    """Return a copy in which `chosen` compute in 8 bits.

    Args:
        model: the fp32 product, from `inferred`.
        ranges: of its activations, from `calibrate`.
        chosen: some of `units`.
        reduce_range: weights of 7 bits.

    Raises:
        TinygrowError: ONNX Runtime's quantiser cannot take the graph.
    """
    names = {unit.node for unit in chosen}
    left = [n.name for n in model.graph.node if n.op_type in UNITS and n.name not in names]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    data = {
        name: (np.array(low, np.float32), np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    try:
        with onnxruntime_tools():
            from onnxruntime.quantization import (
                CalibrationMethod,
                QDQQuantizer,
                QuantType,
                TensorsData,
            )

            quantizer = QDQQuantizer(
                copy,
                per_channel=True,
                reduce_range=reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=TensorsData(CalibrationMethod.MinMax, data),
                nodes_to_quantize=[],
                nodes_to_exclude=left,
                op_types_to_quantize=[*UNITS, *_PASSING],
                extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
            )
            quantizer.quantize_model()
    # The quantiser raises whatever its parts raise.
    except Exception as error:
        raise TinygrowError(
            f"ONNX Runtime's quantiser cannot take the network ({type(error).__name__}: {error});"
            " leave int8 out of export.precisions"
        ) from error
    result: onnx.ModelProto = quantizer.model.model
    sort_nodes(result.graph)
    return result
