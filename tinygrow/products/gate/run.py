"""All checks in order; a check that breaks is a failed check, never a traceback."""

from collections.abc import Callable
from functools import partial

from tinygrow.deploy.sessions import first_line
from tinygrow.products.gate import (
    compression,
    connectivity,
    contract,
    document,
    numerics,
    providers,
    quality,
    quantization,
    weights,
)
from tinygrow.products.gate.check import Check, Verdict, judge, skipped
from tinygrow.products.gate.subject import Subject

Function = Callable[[Subject], Check]

# Each needs what stands before it: a file that parses, then an input that takes uint8 images.
STATIC: dict[str, Function] = {
    "checker": document.checker,
    "shapes": document.shapes,
    "self_contained": document.self_contained,
    "metadata": contract.metadata,
    "normalisation": contract.normalisation,
    "weights": weights.weights,
    "quantization": quantization.quantization,
    "certificate": compression.certificate,
    "connectivity": connectivity.connectivity,
    "contract": contract.interface,
}
RUNNING: dict[str, Function] = {
    "parity": numerics.parity,
    "extremes": numerics.extremes,
    "reference": numerics.reference,
    "determinism": numerics.determinism,
    "batch_invariance": numerics.batch_invariance,
    "same_function": compression.same_function,
    "same_bits": compression.same_bits,
    "outside": compression.outside,
    "agreement": quality.agreement,
    "accuracy": quality.accuracy_kept,
    "calibration": quality.calibration,
    "provider_cpu": partial(providers.provider, name="cpu"),
    **{
        f"provider_{name}": partial(providers.provider, name=name)
        for name in providers.GPU_PROVIDERS
    },
}


def run_gate(subject: Subject) -> Verdict:
    """Run every check that can run and say of the others why they could not."""
    checks = [_run("folding", weights.folding, subject), _run("file", document.readable, subject)]
    if checks[-1].status == "failed":
        reason = "the file could not be read"
        return Verdict((*checks, *(skipped(name, reason) for name in (*STATIC, *RUNNING))))
    checks += [_run(name, function, subject) for name, function in STATIC.items()]
    if checks[-1].status == "failed":
        reason = "the contract does not hold"
        return Verdict((*checks, *(skipped(name, reason) for name in RUNNING)))
    checks += [_run(name, function, subject) for name, function in RUNNING.items()]
    return Verdict(tuple(checks))


def _run(name: str, function: Function, subject: Subject) -> Check:
    try:
        check = function(subject)
    except Exception as error:
        # A broken file makes protobuf, ONNX and ONNX Runtime raise types of no common base; the
        # reason is kept and the verdict is the same: it did not pass.
        check = judge(name, [f"{type(error).__name__}: {first_line(error)}"])
    subject.observer.say(check.line())
    return check
