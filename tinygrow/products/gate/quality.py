"""Is it as good as the checkpoint, over the whole test set?"""

import numpy as np

from tinygrow.products.gate.check import Check, judge
from tinygrow.products.gate.subject import Logits, Subject
from tinygrow.products.reference import accuracy


def agreement(subject: Subject) -> Check:
    """PyTorch and ONNX Runtime name the same class on nearly every test image."""
    share = agreement_share(subject.onnx_logits, subject.torch_logits)
    limit = subject.settings.min_agreement
    problems = [] if share >= limit else [f"{share:.6f} of the classes agree, limit {limit}"]
    numbers = {"agreement": share, "limit": limit, "images": len(subject.images)}
    return judge("agreement", problems, numbers)


def accuracy_kept(subject: Subject) -> Check:
    """ONNX Runtime is as accurate as PyTorch, and as the file says."""
    torch = accuracy(subject.torch_logits, subject.labels)
    onnx = accuracy(subject.onnx_logits, subject.labels)
    stated = float(subject.metadata.get("test_accuracy", "nan"))
    limit = subject.settings.max_accuracy_difference
    problems = [
        f"{what} {value:.3f} %, PyTorch {torch:.3f} %, limit {limit:g} points"
        for what, value in (("ONNX Runtime", onnx), ("the file states", stated))
        if not abs(value - torch) <= limit + 1e-9
    ]
    numbers = {"pytorch": torch, "onnx": onnx, "stated": stated, "limit": limit}
    return judge("accuracy", problems, numbers)


def agreement_share(found: Logits, right: Logits) -> float:
    """Return the share of rows whose largest logit is at the same class."""
    return float(np.mean(found.argmax(1) == right.argmax(1)))
