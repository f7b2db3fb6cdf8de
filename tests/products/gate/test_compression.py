"""A compressed product against the network before, and compressions that are wrong."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.products.conftest import Exporter, make_checkpoint
from tinygrow.certify.check import check_certificate
from tinygrow.checkpoint import Checkpoint
from tinygrow.data.prepared import DataCard
from tinygrow.observer import Observer
from tinygrow.products.gate import compression, connectivity
from tinygrow.products.gate.before import Before
from tinygrow.products.gate.check import Check
from tinygrow.products.gate.subject import Subject
from tinygrow.settings.compress import MILP, CompressSettings, StabilitySettings
from tinygrow.stability.certificate import certificate_of
from tinygrow.stability.compress import Compressed, compress, left_whole
from tinygrow.stability.rewrite import Rewritten
from tinygrow.stability.solver import has_solver
from tinygrow.stability.steps import Rewriter

SETTINGS = CompressSettings(stability=StabilitySettings(data_images=0))


@dataclass(frozen=True)
class Case:
    """A checkpoint with planted units, compressed and exported."""

    folder: Path
    trained: Checkpoint
    done: Compressed

    def subject(self, make_subject: Callable[..., Subject]) -> Subject:
        before = Before(
            trained=self.trained.network,
            certificate=self.folder / "certificate.json",
            uncompressed=self.folder / "uncompressed.onnx",
        )
        subject = make_subject(self.folder / "fp32.onnx")
        return replace(subject, network=self.done.network, before=before)


Maker = Callable[[str, Checkpoint, Compressed | None], Case]


@pytest.fixture(scope="module")
def make_case(export: Exporter, card: DataCard, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    def make(name: str, trained: Checkpoint, done: Compressed | None) -> Case:
        folder = tmp_path_factory.mktemp(name)
        if done is None:
            images = torch.zeros(0, *card.shape, dtype=torch.uint8)
            done = compress(trained, card, images, SETTINGS, Observer())
        files = {"uncompressed": done.folded, "fp32": done.network}
        for file, network in files.items():
            export(Checkpoint(done.architecture, network, trained.notes), folder / f"{file}.onnx")
        before, after = ((folder / f"{file}.onnx").read_bytes() for file in files)
        told = certificate_of("tiny", done, card, SETTINGS, before, after)
        (folder / "certificate.json").write_text(json.dumps(told))
        return Case(folder, trained, done)

    return make


def planted(kind: str) -> Checkpoint:
    """Return a network of which some units are always 0, and an MLP with a merge as well."""
    checkpoint = make_checkpoint(kind)
    network = copy.deepcopy(checkpoint.network)
    with torch.no_grad():
        if kind == "mlp":
            network.layers[0].bias[1] = -400.0
            network.layers[0].bias[2:5] = 400.0
            network.layers[0].weight[4] = 2 * network.layers[0].weight[3]
            network.layers[1].bias -= network.layers[1].weight[:, 2:5].sum(1) * 400.0
        else:
            norm = network.stages[1].block0.norm1
            norm.bias[2] = -3000.0
            norm.weight[0], norm.bias[0] = 0.0, -0.5
    return replace(checkpoint, network=network)


@pytest.fixture(scope="module")
def convolutional(make_case: Maker) -> Case:
    return make_case("resnet", planted("resnet"), None)


@pytest.fixture(scope="module")
def dense(make_case: Maker) -> Case:
    return make_case("mlp", planted("mlp"), None)


@pytest.fixture(scope="module")
def wrong(make_case: Maker, card: DataCard) -> Case:
    """A compression whose finder took a unit for inactive that is not."""
    trained = make_checkpoint("resnet")
    images = torch.zeros(0, *card.shape, dtype=torch.uint8)
    done = compress(trained, card, images, SETTINGS, Observer())
    step = {"op": "remove", "layer": "stages.1.block0.conv1", "reader": "stages.1.block0.conv2"}
    step["units"] = [1]  # type: ignore[assignment]
    rewriter = Rewriter(copy.deepcopy(done.folded).double())
    rewriter.apply(step)
    structure: dict[str, Any] = rewriter.structure()
    rewritten = Rewritten(
        rewriter.network, structure, (step,), {("stages.1.block0.conv1", 1): "removed"}, {}, ()
    )
    network = copy.deepcopy(rewriter.network).float()
    return make_case("wrong", trained, replace(done, network=network, rewritten=rewritten))


@pytest.fixture(scope="module")
def shortened(make_case: Maker) -> Case:
    """A compression that takes both convolutions of a residual block out; a bias is left."""
    trained = make_checkpoint("resnet")
    network = copy.deepcopy(trained.network)
    with torch.no_grad():
        norm = network.stages[0].block0.norm2
        norm.weight.zero_()
        norm.bias.fill_(0.25)
    return make_case("shortened", replace(trained, network=network), None)


@pytest.fixture(scope="module")
def solved(make_case: Maker, card: DataCard) -> Callable[[MILP], Case]:
    """A network whose unit `layers.1`[0] is -1, which a solver sees and intervals do not.

    It is the difference of two equal units that are on and off, less 1.
    """

    def make(milp: MILP) -> Case:
        checkpoint = make_checkpoint("mlp")
        network = copy.deepcopy(checkpoint.network)
        with torch.no_grad():
            first, second = network.layers[0], network.layers[1]
            first.weight[1], first.bias[1] = first.weight[0], first.bias[0]
            second.weight[0], second.bias[0] = 0.0, -1.0
            second.weight[0, 0], second.weight[0, 1] = 1.0, -1.0
        trained = replace(checkpoint, network=network)
        ladder = StabilitySettings(milp=milp, data_images=0, pgd_steps=20)
        images = torch.zeros(0, *card.shape, dtype=torch.uint8)
        done = compress(trained, card, images, replace(SETTINGS, stability=ladder), Observer())
        return make_case(milp, trained, done)

    return make


def statuses(subject: Subject) -> dict[str, Check]:
    checks = (compression.certificate, compression.same_function, compression.same_bits)
    found = [check(subject) for check in (*checks, compression.outside)]
    return {check.name: check for check in found}


def test_a_deletion_of_convolutions_passes_bit_by_bit(
    convolutional: Case, make_subject: Callable[..., Subject]
) -> None:
    assert [s["op"] for s in convolutional.done.rewritten.steps] == ["remove"]
    found = statuses(convolutional.subject(make_subject))
    assert {c.status for c in found.values()} == {"passed"}, found
    bits = found["same_bits"].numbers
    assert bits["demanded"] == "bits" and bits["same_bits"] == bits["rows"]
    assert found["same_function"].numbers["test_images"] == 60
    assert found["same_function"].numbers["limit"] == compression.EXACT
    # Of two removed units one hangs on the image: far outside it fires, and this shows.
    outside = found["outside"].numbers
    assert (outside["units"], outside["fired"]) == (1, 1)
    assert float(outside["difference"]) > 1e-6


def test_merged_weights_are_held_to_rounding(
    dense: Case, make_subject: Callable[..., Subject]
) -> None:
    assert {s["op"] for s in dense.done.rewritten.steps} == {"remove", "merge"}
    found = statuses(dense.subject(make_subject))
    assert {c.status for c in found.values()} == {"passed"}, found
    numbers = found["same_function"].numbers
    assert numbers["limit"] == 1e-4  # the gate's of fp32
    assert compression.EXACT < float(numbers["as_shipped"]) < 1e-4
    assert found["same_bits"].numbers["demanded"] == "rounding"


def test_an_unsound_deletion_is_found_by_each_check(
    wrong: Case, make_subject: Callable[..., Subject]
) -> None:
    found = statuses(wrong.subject(make_subject))
    failed = {name for name, check in found.items() if check.status == "failed"}
    assert failed == {"certificate", "same_function", "same_bits"}
    assert "test:" in found["same_function"].reason
    assert "adversarial:" in found["same_function"].reason
    assert "not 0 in float32" in found["same_bits"].reason


@pytest.mark.skipif(not has_solver(), reason="SKIPPED: highspy is not installed (tinygrow[milp])")
@pytest.mark.parametrize("milp", ["isa", "per_neuron"])
def test_what_a_solver_proves_is_trusted_and_goes_through_the_gate(
    solved: Callable[[MILP], Case], make_subject: Callable[..., Subject], milp: MILP
) -> None:
    case = solved(milp)
    (unit,) = [u for u in certificate_units(case) if u["method"] == "milp"]
    assert (unit["layer"], unit["index"], unit["kind"]) == ("layers.1", 0, "inactive")
    assert unit["action"] == "removed" and unit["margin"] >= unit["slack"] > 0
    paths = [case.folder / name for name in ("certificate.json", "uncompressed.onnx", "fp32.onnx")]
    verdict = check_certificate(*paths)
    assert verdict.accepted, verdict.problems
    words = {(u.layer, u.index): u.word for u in verdict.units}
    assert words.pop(("layers.1", 0)) == "trusted"
    assert set(words.values()) <= {"checked"}
    found = statuses(case.subject(make_subject))
    assert {c.status for c in found.values()} == {"passed"}, found
    assert found["certificate"].numbers["trusted"] == 1
    # Without the solver's word the step has nothing to stand on.
    told = json.loads(paths[0].read_text())
    told["units"] = [u | {"method": "interval"} for u in told["units"]]
    paths[0].write_text(json.dumps(told))
    refused = check_certificate(*paths)
    assert refused.counts()["refused"] == 1
    assert any("layers.1[0]" in problem for problem in refused.problems)


def certificate_units(case: Case) -> list[dict[str, Any]]:
    units: list[dict[str, Any]] = json.loads((case.folder / "certificate.json").read_text())[
        "units"
    ]
    return units


def test_weights_that_the_certificate_does_not_name_are_refused(
    convolutional: Case, make_subject: Callable[..., Subject]
) -> None:
    subject = convolutional.subject(make_subject)
    other = copy.deepcopy(subject.network)
    with torch.no_grad():
        other.head.bias[0] += 1e-3
    check = compression.certificate(replace(subject, network=other))
    assert check.status == "failed" and "head.bias" in check.reason
    # Another trained network than the one that the certificate begins with.
    trained = copy.deepcopy(convolutional.trained.network)
    with torch.no_grad():
        trained.head.bias[0] += 1e-3
    assert subject.before is not None
    check = compression.certificate(
        replace(subject, before=replace(subject.before, trained=trained))
    )
    assert check.status == "failed" and "is not the trained network" in check.reason


def test_a_block_that_is_gone_is_looked_for_in_the_compressed_network_alone(
    shortened: Case, make_subject: Callable[..., Subject]
) -> None:
    (step,) = [s for s in shortened.done.rewritten.steps if s["op"] == "shortcut"]
    assert step["dropped"] == ["stages.0.block0.conv1", "stages.0.block0.conv2"]
    subject = shortened.subject(make_subject)
    check = connectivity.connectivity(subject)
    assert check.status == "passed", check.line()
    trained = connectivity.connectivity(replace(subject, network=shortened.trained.network))
    assert trained.status == "failed"
    uncompressed = replace(subject, path=shortened.folder / "uncompressed.onnx")
    before = connectivity.connectivity(uncompressed)
    assert before.status == "failed"
    assert int(before.numbers["layers"]) == int(check.numbers["layers"]) + 2


def test_what_the_checker_cannot_read_is_not_certified_and_must_be_whole(
    convolutional: Case, make_subject: Callable[..., Subject], make_case: Maker, card: DataCard
) -> None:
    whole = left_whole(convolutional.done, card, SETTINGS, "why")
    case = make_case("whole", convolutional.trained, whole)
    subject = case.subject(make_subject)
    assert subject.before is not None
    assert compression.certificate(subject).status == "passed"
    told = json.loads((case.folder / "certificate.json").read_text())
    told["domain"]["type"] = "unread"
    for unchecked, status in (("", "failed"), ("a word", "skipped")):
        value = told | {"unchecked": unchecked}
        (case.folder / "certificate.json").write_text(json.dumps(value))
        subject.before.__dict__["told"] = value
        found = compression.certificate(subject)
        assert found.status == status and unchecked in found.reason
    subject.before.__dict__["told"] = value | {"units": certificate_units(convolutional)}
    assert compression.certificate(subject).status == "failed"
    with torch.no_grad():
        other = copy.deepcopy(subject.network)
        other.head.bias[0] += 1e-3
    subject.before.__dict__["told"] = value
    assert compression.certificate(replace(subject, network=other)).status == "failed"


def test_that_no_unit_can_fire_is_said(
    convolutional: Case, make_subject: Callable[..., Subject]
) -> None:
    subject = convolutional.subject(make_subject)
    assert subject.before is not None
    told = subject.before.told
    subject.before.__dict__["told"] = told | {"units": [u for u in told["units"] if not u["index"]]}
    check = compression.outside(subject)
    assert check.status == "passed"
    assert check.numbers["said"] == "no removed unit depends on the image"


def test_other_precisions_are_derived_and_not_certified(
    convolutional: Case, make_subject: Callable[..., Subject]
) -> None:
    subject = convolutional.subject(make_subject)
    for check in (compression.certificate, compression.outside):
        found = check(replace(subject, precision="int8"))
        assert (found.status, found.reason) == (
            "skipped",
            "derived from the fp32 product, not certified",
        )
        assert check(replace(subject, before=None)).status == "skipped"
