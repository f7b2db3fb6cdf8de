"""Does it compute what the network before compression computes, for every image there can be?

The certificate is the proof; the other checks try to show that it is wrong.
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper
from torch import nn

from tinygrow.certify.check import check_certificate
from tinygrow.products.export import normalization
from tinygrow.products.gate.before import Before
from tinygrow.products.gate.check import Check, Number, judge, skipped
from tinygrow.products.gate.numerics import extreme_images
from tinygrow.products.gate.outside import find_outside
from tinygrow.products.gate.subject import Images, Subject, run_session

EXACT = 1e-12
"""Relative difference of logits in float64: what its rounding can do."""
BLOCK = 128
"""ONNX Runtime sums matrix products in blocks of so many (or more): within one, zeros change
nothing, whatever their number."""

_RANDOM, _STARTS, _ASCENT = 64, 8, 10


def _of_fp32(check: Callable[[Subject, Before], Check]) -> Callable[[Subject], Check]:
    name = check.__name__

    def run(subject: Subject) -> Check:
        if subject.before is None:
            return skipped(name, "there is no network before compression")
        if subject.precision != "fp32":
            return skipped(name, "derived from the fp32 product, not certified")
        return check(subject, subject.before)

    run.__doc__ = check.__doc__
    return run


@_of_fp32
def certificate(subject: Subject, before: Before) -> Check:
    """An independent checker accepts the certificate, and its steps make the checkpoint's weights.

    Bit for bit, after one rounding; and they begin at the weights of the trained network. A network
    that the checker cannot read is not certified, and nothing may have been taken out of it.
    """
    verdict = check_certificate(before.certificate, before.uncompressed, subject.path)
    claims = before.steps or before.told["units"]
    unread = "" if claims else str(before.told.get("unchecked", ""))
    problems = [] if unread else list(verdict.problems[:3])
    found, right = subject.folded.state_dict(), before.rounded
    if found.keys() != right.keys():
        problems.append("its steps make another network than the checkpoint's")
    else:
        wrong = [name for name in right if not torch.equal(found[name], right[name])]
        problems += [f"its steps make another {name}" for name in wrong[:3]]
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(before.uncompressed).graph.initializer
    }
    for name, values in before.folded.state_dict().items():
        if name not in stored or not np.array_equal(stored[name], values.numpy()):
            problems.append(f"{before.uncompressed.name} is not the trained network: {name}")
            break
    if unread and not problems:
        return skipped("certificate", f"nothing was removed, and the checker says: {unread}")
    return judge("certificate", problems, {**verdict.counts(), "steps": len(before.steps)})


@_of_fp32
def same_function(subject: Subject, before: Before) -> Check:
    """In float64, before and after give the same logits and name the same class.

    On the test set, on random images and corners of the domain, and on images that a search for the
    largest difference ends at. The weights as shipped, rounded to float32, are held to the same
    where nothing was computed, and else to the gate's tolerance of fp32.
    """
    if not before.steps:
        return judge("same_function", [], {"removed": 0})
    shipped = _double(subject.folded)
    limit = EXACT if before.deletes_only else subject.budget.relative_tolerance
    numbers: dict[str, Number] = {}
    problems: list[str] = []
    worst = 0.0
    for name, batches in _inputs(subject, before.exact, shipped).items():
        apart, other, images = 0.0, 0, 0
        for batch in batches:
            right, exact, rounded = (
                _logits(n, batch) for n in (before.exact, before.replayed, shipped)
            )
            scale = float(right.abs().max()) or 1.0
            apart = max(apart, float((exact - right).abs().max()) / scale)
            worst = max(worst, float((rounded - right).abs().max()) / scale)
            other += int((exact.argmax(1) != right.argmax(1)).sum())
            if name == "test":
                other += int((rounded.argmax(1) != right.argmax(1)).sum())
            images += len(batch)
        numbers |= {name: apart, f"{name}_images": images}
        if not apart <= EXACT:
            problems.append(f"{name}: {apart:.3g} of the logits' scale, limit {EXACT:g}")
        if other:
            problems.append(f"{name}: another class {other} times")
    if not worst <= limit:
        problems.append(f"as shipped: {worst:.3g} of the logits' scale, limit {limit:g}")
    return judge("same_function", problems, {**numbers, "as_shipped": worst, "limit": limit})


@_of_fp32
def same_bits(subject: Subject, before: Before) -> Check:
    """In ONNX Runtime with its graph optimisations off, what was deleted is 0, bit by bit.

    The file before gives the same bits with the deleted units' weights set to 0. A convolutional
    network that only lost units gives the same bits as well, where each of its sums fits into one
    block (`BLOCK`); elsewhere blocks begin at other places, and the difference must be one of
    rounding.
    """
    model = onnx.load(before.uncompressed)
    images = np.concatenate(
        [subject.real(64), *extreme_images(subject.card.shape).values(), _random(subject)]
    )
    right = run_session(_plain_session(model), images)
    masked = run_session(_plain_session(_masked(model, before)), images)
    found = run_session(_plain_session(subject.model), images)
    same = (found == right).all(1)
    scale = float(np.abs(right).max()) or 1.0
    apart = float(np.abs(found - right).max()) / scale
    bitwise = _one_block(model, before)
    limit = subject.budget.relative_tolerance
    problems = []
    if not np.array_equal(masked, right):
        problems.append("a deleted unit is not 0 in float32")
    if bitwise and not same.all():
        problems.append(f"{int((~same).sum())} of {len(same)} rows have other bits")
    if not apart <= limit:
        problems.append(f"{apart:.3g} of the logits' scale, limit {limit:g}")
    numbers = {"rows": len(same), "same_bits": int(same.sum()), "relative_difference": apart}
    return judge("same_bits", problems, {**numbers, "demanded": "bits" if bitwise else "rounding"})


@_of_fp32
def outside(subject: Subject, before: Before) -> Check:
    """Where a removed unit can fire outside of the domain, the networks differ: tests can fail.

    Images that make removed units fire are looked for far outside; on one of them the float
    networks must differ. Where none is found, that is said.
    """
    found = find_outside(before, subject.card)
    numbers: dict[str, Number] = {
        "units": found.units,
        "fired": found.fired,
        "difference": found.difference,
    }
    if not found.units:
        return judge("outside", [], {**numbers, "said": "no removed unit depends on the image"})
    if not found.fired:
        return judge("outside", [], {**numbers, "said": "no image was found where one fires"})
    problems = []
    if not found.difference > 1e3 * EXACT:
        problems.append(
            f"{found.fired} removed units fire outside of the domain, and the logits stay the same"
        )
    return judge("outside", problems, numbers)


def _double(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).double()


@torch.no_grad()
def _logits(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = network(images)
    return value


def _random(subject: Subject) -> Images:
    return np.random.default_rng(1).integers(0, 256, (_RANDOM, *subject.card.shape), np.uint8)


def _inputs(
    subject: Subject, one: nn.Module, other: nn.Module
) -> dict[str, Iterator[torch.Tensor]]:
    """Return batches of normalised images, float64, by where they come from."""
    scale, shift = (torch.from_numpy(v).double() for v in normalization(subject.card))

    def batches(images: Images) -> Iterator[torch.Tensor]:
        for start in range(0, len(images), 256):
            yield torch.from_numpy(images[start : start + 256]).double() * scale + shift

    random = _random(subject)
    corners = np.where(random < 128, 0, 255).astype(np.uint8)
    corners = np.concatenate([*extreme_images(subject.card.shape).values(), corners])
    starts = next(batches(np.concatenate([subject.real(_STARTS), random[:_STARTS]])))
    ends = (shift, 255 * scale + shift)
    return {
        "test": batches(subject.images),
        "random": batches(random),
        "corners": batches(corners),
        "adversarial": iter([_ascend(one, other, starts, ends)]),
    }


def _ascend(
    one: nn.Module, other: nn.Module, images: torch.Tensor, ends: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return images of the box, near the given ones, where two networks differ most."""
    low, high = ends
    for step in range(_ASCENT):
        images = images.detach().requires_grad_(True)
        (one(images) - other(images)).abs().sum().backward()
        assert images.grad is not None
        size = (high - low) * 0.25 / (1 + step)
        images = torch.minimum(torch.maximum(images + size * images.grad.sign(), low), high)
    return images.detach()


def _plain_session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _masked(model: onnx.ModelProto, before: Before) -> onnx.ModelProto:
    """Return the network before with zeros for the weights of units that were always 0."""
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in masked.graph.initializer}
    values = {name: numpy_helper.to_array(tensor).copy() for name, tensor in tensors.items()}
    for step in before.steps:
        if step["op"] not in ("remove", "stream"):
            continue
        writers = step.get("writers") or [step["layer"]]
        readers = step.get("readers") or [step["reader"]]
        width = len(values[f"{writers[0]}.weight"])
        for path in writers:
            values[f"{path}.weight"][step["units"]] = 0
            if f"{path}.bias" in values:
                values[f"{path}.bias"][step["units"]] = 0
        for path in readers:
            weight = values[f"{path}.weight"]
            each = weight.shape[1] // width
            by_unit = weight.reshape(len(weight), width, each, *weight.shape[2:])
            by_unit[:, step["units"]] = 0
    for name, tensor in tensors.items():
        tensor.CopyFrom(numpy_helper.from_array(values[name], name))
    return masked


def _one_block(model: onnx.ModelProto, before: Before) -> bool:
    """Say whether deletions leave each sum of a convolutional network in one block."""
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer if len(t.dims) > 1}
    weights = {name: dims for name, dims in weights.items() if name.endswith(".weight")}
    left = {name: tuple(values.shape) for name, values in before.rounded.items()}
    return (
        before.deletes_only
        and any(node.op_type == "Conv" for node in model.graph.node)
        and all(np.prod(dims[1:]) <= BLOCK for dims in weights.values())
        and all(dims[0] > 1 for name, dims in left.items() if name in weights)
    )
