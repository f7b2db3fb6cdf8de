"""Does it run on each execution provider, as that session itself says?"""

import numpy as np

from tinygrow.deploy.sessions import open_session, provider_of, provider_problem
from tinygrow.errors import TinygrowError
from tinygrow.products.gate.check import Check, judge, skipped
from tinygrow.products.gate.quality import agreement_share
from tinygrow.products.gate.subject import Subject, relative_difference, run_session

GPU_PROVIDERS = ("cuda", "tensorrt")


def provider(subject: Subject, name: str) -> Check:
    """One provider agrees with PyTorch over the whole test set, or is SKIPPED with the reason.

    Args:
        subject: the file under test.
        name: `cpu`, `cuda` or `tensorrt`.
    """
    title = f"provider_{name}"
    if name == "tensorrt" and subject.precision == "int8":
        return skipped(
            title, "TensorRT takes signed activations alone; this product's are unsigned"
        )
    problem = provider_problem(name)
    if problem and (name == "cpu" or (name == "cuda" and subject.settings.require_gpu)):
        return judge(title, [f"does not run here: {problem}"])
    if problem:
        return skipped(title, problem)
    if name == "cpu":
        session, logits = subject.session, subject.onnx_logits
    else:
        try:
            session = open_session(subject.content, name, exact=True)
        except TinygrowError as error:
            if subject.precision != "int8":
                raise
            # It is made for CPUs: a GPU that lacks a kernel for it is no reason to refuse it.
            return skipped(title, f"it does not run whole there ({error})")
        logits = run_session(session, subject.images, subject.observer)
    ran_on = provider_of(session)
    if ran_on != name:
        return judge(title, [f"the session ran on {ran_on}"])
    difference = relative_difference(logits, subject.torch_logits)
    share = agreement_share(logits, subject.torch_logits)
    # The logits of int8 differ by design; they must be finite, which the difference is then too.
    limit = (
        subject.budget.relative_tolerance if subject.precision != "int8" else np.finfo(float).max
    )
    problems = []
    if not difference <= limit:
        problems.append(f"{difference:.3g} of the logits' scale, limit {limit:g}")
    if share < subject.budget.min_agreement:
        problems.append(f"{share:.6f} of the classes agree")
    numbers = {
        "ran_on": session.get_providers()[0],
        "relative_difference": difference,
        "agreement": share,
        "images": len(subject.images),
    }
    return judge(title, problems, numbers)
