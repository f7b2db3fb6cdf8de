"""Are the numbers in the file those of the checkpoint?"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from tinygrow.products.export import SCALE, SHIFT
from tinygrow.products.gate.check import Check, judge
from tinygrow.products.gate.quantization import dequantized
from tinygrow.products.gate.subject import Subject, relative_difference
from tinygrow.products.half import LARGEST, SMALLEST
from tinygrow.products.pooling import SUFFIX
from tinygrow.products.reference import torch_logits

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
# A step is rounded to float32, and so is the quotient that is rounded to a whole number of them.
_HALF_STEP = 0.501


def weights(subject: Subject) -> Check:
    """Every tensor of the folded checkpoint is in the file as its precision has it, and no other.

    fp32: bit for bit. fp16: the nearest float16, bit for bit; what float16 does not reach becomes
    its end. int8: within half a step of the tensor's own scale, or bit for bit where it is float;
    what takes the place of an average over a window is that window's mean, likewise.
    """
    stored = {t.name: numpy_helper.to_array(t) for t in subject.model.graph.initializer}
    steps = dequantized(subject.model) if subject.precision == "int8" else {}
    state = {name: t.numpy() for name, t in subject.folded.state_dict().items()}
    if subject.precision == "int8":
        state |= _means(stored, steps, state)
    used = {name for node in subject.model.graph.node for name in node.input}
    problems, changed, worst = [], 0, 0.0
    for name, exact in state.items():
        if name in steps:
            values, step = steps[name]
            apart = np.abs(values - exact) / step if values.shape == exact.shape else np.array(9.0)
            if not apart.max(initial=0) <= _HALF_STEP:
                problems.append(f"{name} is {apart.max():.3g} of its steps apart")
            continue
        found = stored.get(name)
        right = _halved(exact) if subject.precision == "fp16" else exact
        if found is None or name not in used:
            problems.append(f"{name} is {'missing' if found is None else 'not used'}")
        elif (found.dtype, found.shape) != (right.dtype, right.shape):
            problems.append(f"{name} is {found.dtype}{found.shape}, not {right.dtype}{right.shape}")
        elif found.tobytes() != right.tobytes():
            count = int((found != right).sum())
            difference = float(np.abs(found - right).max())
            changed, worst = changed + count, max(worst, difference)
            problems.append(f"{name}: {count} of {right.size} values differ by up to {worst:.3g}")
    problems += [f"{name} is not of the checkpoint" for name in _strange(subject, state)]
    if len(problems) > 3:
        problems[3:] = [f"and {len(problems) - 3} more"]
    numbers = {
        "tensors": len(state),
        "values": sum(t.size for t in state.values()),
        "values_changed": changed,
        "largest_difference": worst,
    }
    if subject.precision == "int8":
        numbers["tensors_quantized"] = sum(name in steps for name in state)
    return judge("weights", problems, numbers)


def _means(
    stored: Mapping[str, NDArray[np.generic]],
    steps: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    state: Mapping[str, object],
) -> dict[str, NDArray[np.generic]]:
    """Return what the weights of averages must be, by their names in the file."""
    shapes = {name: values.shape for name, (values, _) in steps.items()}
    shapes |= {name: values.shape for name, values in stored.items()}
    return {
        name: np.full(shape, 1 / np.prod(shape[2:]), np.float32)
        for name, shape in shapes.items()
        if name.endswith(SUFFIX) and name not in state
    }


def _halved(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the nearest float16; only zero becomes zero, and nothing infinite."""
    if values.dtype != np.float32:
        return values
    size = np.clip(np.abs(values), SMALLEST, LARGEST)
    return np.where(values == 0, values, np.copysign(size, values)).astype(np.float16)


def _strange(subject: Subject, state: Mapping[str, object]) -> list[str]:
    """Return stored floats that are neither of the checkpoint nor of its normalisation or steps."""
    scales = set()
    if subject.precision == "int8":
        kinds = ("QuantizeLinear", "DequantizeLinear")
        scales = {n.input[1] for n in subject.model.graph.node if n.op_type in kinds}
    return [
        t.name
        for t in subject.model.graph.initializer
        if t.name not in {*state, SCALE, SHIFT, *scales} and t.data_type in _FLOATS
    ]


def folding(subject: Subject) -> Check:
    """The folded (and compressed) network gives the logits of the trained one, in PyTorch."""
    images = subject.real(64)
    trained = subject.network if subject.before is None else subject.before.trained
    right = torch_logits(trained, subject.card, images)
    difference = relative_difference(subject.reference(images), right)
    limit = subject.settings.fp32.relative_tolerance
    problems = [] if difference <= limit else [f"differs by {difference:.3g} of the logits' scale"]
    return judge("folding", problems, {"relative_difference": difference, "limit": limit})
