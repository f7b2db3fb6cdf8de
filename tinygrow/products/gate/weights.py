"""Are the numbers in the file those of the checkpoint?"""

import numpy as np
from onnx import numpy_helper

from tinygrow.products.export import SCALE, SHIFT
from tinygrow.products.gate.check import Check, judge
from tinygrow.products.gate.subject import Subject, relative_difference
from tinygrow.products.reference import torch_logits


def weights(subject: Subject) -> Check:
    """Every tensor of the folded checkpoint is in the file, bit for bit, and no other is."""
    stored = {t.name: numpy_helper.to_array(t) for t in subject.model.graph.initializer}
    state = {name: t.numpy() for name, t in subject.folded.state_dict().items()}
    used = {name for node in subject.model.graph.node for name in node.input}
    problems, changed, worst = [], 0, 0.0
    for name, right in state.items():
        found = stored.get(name)
        if found is None or name not in used:
            problems.append(f"{name} is {'missing' if found is None else 'not used'}")
        elif (found.dtype, found.shape) != (right.dtype, right.shape):
            problems.append(f"{name} is {found.dtype}{found.shape}, not {right.dtype}{right.shape}")
        elif found.tobytes() != right.tobytes():
            count = int((found != right).sum())
            difference = float(np.abs(found - right).max())
            changed, worst = changed + count, max(worst, difference)
            problems.append(f"{name}: {count} of {right.size} values differ by up to {worst:.3g}")
    for name, values in stored.items():
        if name not in state and name not in (SCALE, SHIFT) and values.dtype.kind == "f":
            problems.append(f"{name} is not of the checkpoint")
    if len(problems) > 3:
        problems[3:] = [f"and {len(problems) - 3} more"]
    numbers = {
        "tensors": len(state),
        "values": sum(t.size for t in state.values()),
        "values_changed": changed,
        "largest_difference": worst,
    }
    return judge("weights", problems, numbers)


def folding(subject: Subject) -> Check:
    """The folded network gives the logits of the checkpoint as it was trained, in PyTorch."""
    images = subject.real(64)
    right = torch_logits(subject.network, subject.card, images)
    difference = relative_difference(subject.reference(images), right)
    limit = subject.settings.relative_tolerance
    problems = [] if difference <= limit else [f"differs by {difference:.3g} of the logits' scale"]
    return judge("folding", problems, {"relative_difference": difference, "limit": limit})
