"""Is it as good as the checkpoint, over the whole test set?"""

import numpy as np
from numpy.typing import NDArray

from tinygrow.products.gate.check import Check, judge
from tinygrow.products.gate.subject import Logits, Subject
from tinygrow.products.reference import accuracy

ECE_BINS = 15


def agreement(subject: Subject) -> Check:
    """PyTorch and ONNX Runtime name the same class on nearly every test image."""
    share = agreement_share(subject.onnx_logits, subject.torch_logits)
    limit = subject.budget.min_agreement
    problems = [] if share >= limit else [f"{share:.6f} of the classes agree, limit {limit}"]
    numbers = {"agreement": share, "limit": limit, "images": len(subject.images)}
    return judge("agreement", problems, numbers)


def accuracy_kept(subject: Subject) -> Check:
    """ONNX Runtime loses no more than the budget, and PyTorch is as accurate as the file says."""
    torch = accuracy(subject.torch_logits, subject.labels)
    onnx = accuracy(subject.onnx_logits, subject.labels)
    stated = float(subject.metadata.get("test_accuracy", "nan"))
    limit = subject.budget.max_accuracy_loss
    problems = []
    if not torch - onnx <= limit + 1e-9:
        problems.append(
            f"ONNX Runtime {onnx:.3f} %, PyTorch {torch:.3f} %, limit {limit:g} points lost"
        )
    if not abs(stated - torch) <= subject.settings.fp32.max_accuracy_loss + 1e-9:
        problems.append(f"the file states {stated:.3f} %, PyTorch {torch:.3f} %")
    numbers = {"pytorch": torch, "onnx": onnx, "stated": stated, "limit": limit}
    return judge("accuracy", problems, numbers)


def calibration(subject: Subject) -> Check:
    """Its probabilities are as trustworthy: the expected calibration error grows little.

    Both errors are told as they are; the growth is judged with every image in PyTorch's bin, so
    that one that slips over the border between two bins makes no difference.
    """
    torch = expected_calibration_error(subject.torch_logits, subject.labels)
    onnx = expected_calibration_error(subject.onnx_logits, subject.labels)
    same_bins = expected_calibration_error(
        subject.onnx_logits, subject.labels, binned_by=subject.torch_logits
    )
    increase, limit = same_bins - torch, subject.budget.max_ece_increase
    problems = []
    if not increase <= limit:
        problems.append(
            f"ECE {onnx:.4f}, PyTorch {torch:.4f}: {increase:.4f} more in the same bins, limit"
            f" {limit:g}"
        )
    numbers = {
        "pytorch": torch,
        "onnx": onnx,
        "increase": increase,
        "limit": limit,
        "bins": ECE_BINS,
    }
    return judge("calibration", problems, numbers)


def expected_calibration_error(
    logits: Logits, labels: NDArray[np.int64], binned_by: Logits | None = None
) -> float:
    """Return the mean gap between confidence and accuracy, from 0 to 1; NaN for broken logits.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3: the softmax share of
    the class that is named falls into one of 15 bins of equal width (i/15, (i+1)/15]; in each bin
    the mean share is compared with the accuracy, and bins weigh by their images.

    Args:
        logits: (N, classes).
        labels: (N,).
        binned_by: logits whose confidences choose the bins; none: the same.
    """
    confidence = _confidence(logits)
    chosen = confidence if binned_by is None else _confidence(binned_by)
    if not np.isfinite([confidence, chosen]).all():
        return float("nan")
    right = logits.argmax(1) == labels
    bins = np.clip(np.ceil(chosen * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, right - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def _confidence(logits: Logits) -> NDArray[np.float64]:
    """Return the softmax share of the largest logit of each row."""
    scores = logits.astype(np.float64)
    return 1 / np.exp(scores - scores.max(1, keepdims=True)).sum(1)


def agreement_share(found: Logits, right: Logits) -> float:
    """Return the share of rows whose largest logit is at the same class."""
    return float(np.mean(found.argmax(1) == right.argmax(1)))
