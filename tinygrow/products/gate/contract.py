"""Does it take and give what every product of the factory takes and gives, and say so?"""

import json

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tinygrow.deploy.contract import BATCH, INPUT, KEYS, OUTPUT, Contract
from tinygrow.errors import TinygrowError
from tinygrow.products.export import normalization
from tinygrow.products.gate.check import Check, Number, judge
from tinygrow.products.gate.subject import Subject
from tinygrow.products.metadata import contract_of, digest

# What convolutions, pooling, skips and linear layers become; BatchNormalization is folded before.
# The rest is of users' networks: activations, gates, other norms, attention. Nothing draws random
# numbers, trains, or hangs on another domain.
OPERATORS = frozenset(
    {"Add", "AveragePool", "Cast", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "Mul"}
    | {"ReduceMean", "Relu", "Reshape"}
    | {"Abs", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish"}
    | {"LeakyRelu", "Log", "Max", "Min", "Mish", "Neg", "PRelu", "Pow", "Reciprocal", "Selu"}
    | {"Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Swish", "Tanh"}
    | {"GlobalMaxPool", "MaxPool", "Pad", "Resize"}
    | {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"}
    | {"LogSoftmax", "MatMul", "ReduceMax", "ReduceSum", "Softmax"}
    | {"CastLike", "Concat", "Constant", "ConstantOfShape", "Expand", "Gather", "Identity"}
    | {"Range", "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)

QUANTIZATION = frozenset({"DequantizeLinear", "QuantizeLinear"})

Shape = list[int | str]


def interface(subject: Subject) -> Check:
    """One input, one output: names, types, symbolic batch; the opset; known operators alone."""
    graph = subject.model.graph
    card = subject.card
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    problems = _value_problems("input", inputs, INPUT, TensorProto.UINT8, [BATCH, *card.shape])
    wanted: Shape = [BATCH, len(card.classes)]
    problems += _value_problems("output", list(graph.output), OUTPUT, TensorProto.FLOAT, wanted)
    opsets = [o.version for o in subject.model.opset_import if o.domain in ("", "ai.onnx")]
    if opsets != [subject.opset]:
        problems.append(f"opset is {opsets}, not {subject.opset}")
    known = OPERATORS | QUANTIZATION if subject.precision == "int8" else OPERATORS
    foreign = sorted({node.op_type for node in graph.node} - known)
    if foreign:
        problems.append(f"operators {', '.join(foreign)} are not of the contract")
    return judge("contract", problems, {"opset": opsets[0] if opsets else "none"})


def metadata(subject: Subject) -> Check:
    """All entries are there and agree with the data set and with the file's own weights."""
    found = subject.metadata
    keys = (*KEYS, "quantization") if subject.precision == "int8" else KEYS
    missing = [key for key in keys if not found.get(key)]
    if missing:
        return judge("metadata", [f"{', '.join(missing)} missing; export the model again"])
    problems: list[str] = []
    right = contract_of(subject.name, subject.card)
    try:
        said = Contract.from_metadata(found)
        for key in ("model", "classes", "shape", "mean", "std"):
            if getattr(said, key) != getattr(right, key):
                problems.append(f"{key} is {getattr(said, key)}, not {getattr(right, key)}")
        for key in ("growth", "versions", *keys[len(KEYS) :]):
            json.loads(found[key])
        if int(found["parameters"]) < 1 or int(found["multiply_adds"]) < 1:
            problems.append("parameters and multiply_adds must be positive")
        if not 0 <= float(found["test_accuracy"]) <= 100:
            problems.append(f"test_accuracy is {found['test_accuracy']}; it is in percent")
    except (TinygrowError, ValueError) as error:
        problems.append(str(error))
    if found["precision"] != subject.precision:
        problems.append(f"precision is {found['precision']!r}, not {subject.precision!r}")
    if found["data"] != subject.card.name:
        problems.append(f"data is {found['data']!r}, not {subject.card.name!r}")
    if found["digest"] != digest(subject.model):
        problems.append("the digest is not that of the file's weights")
    return judge("metadata", problems, {"entries": len(found)})


def normalisation(subject: Subject) -> Check:
    """The constants of Cast, Mul, Add before the network are the data set's mean and std."""
    graph = subject.model.graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    name, constants = INPUT, []
    for operator in ("Cast", "Mul", "Add"):
        readers = [node for node in graph.node if name in node.input]
        if [node.op_type for node in readers] != [operator]:
            kinds = ", ".join(node.op_type for node in readers) or "nothing"
            return judge("normalisation", [f"{kinds} reads {name!r} where {operator} should"])
        constants += [stored[key] for key in readers[0].input if key in stored]
        name = readers[0].output[0]
    numbers: dict[str, Number] = {}
    problems = []
    for what, found, right in zip(
        ("scale", "shift"), constants, normalization(subject.card), strict=True
    ):
        if found.shape != right.shape:
            problems.append(f"{what} has shape {found.shape}, not {right.shape}")
            continue
        difference = float(np.abs(found - right).max())
        numbers[f"{what}_difference"] = difference
        # Bit for bit but for the last place, which another NumPy may round otherwise.
        if difference > 2e-7 * float(np.abs(right).max()):
            problems.append(
                f"{what} is {_list(found)}, but mean and std of the data set give {_list(right)}"
            )
    return judge("normalisation", problems, numbers)


def _value_problems(
    what: str, values: list[onnx.ValueInfoProto], name: str, kind: int, shape: Shape
) -> list[str]:
    if [value.name for value in values] != [name]:
        return [f"{what}s are {[value.name for value in values]}, not [{name!r}]"]
    tensor = values[0].type.tensor_type
    problems = []
    if tensor.elem_type != kind:
        problems.append(f"{what} {name!r} is {_type(tensor.elem_type)}, not {_type(kind)}")
    dims: Shape = [d.dim_param or d.dim_value for d in tensor.shape.dim]
    if dims != shape:
        problems.append(f"{what} {name!r} has shape {dims}, not {shape}")
    return problems


def _type(kind: int) -> str:
    return TensorProto.DataType.Name(kind).lower()


def _list(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{float(x):.6g}" for x in values.ravel()) + "]"
