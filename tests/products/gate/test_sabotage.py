"""Broken files, each found by the checks that are there to find it, and by no traceback."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinygrow.checkpoint import Checkpoint
from tinygrow.data.prepared import DataCard
from tinygrow.products.export import SHIFT
from tinygrow.products.gate.check import Check
from tinygrow.products.gate.run import RUNNING, STATIC, run_gate
from tinygrow.products.gate.subject import Subject
from tinygrow.products.metadata import digest

Edit = Callable[[Callable[[onnx.ModelProto], None]], Path]
Make = Callable[..., Subject]


def outcome(subject: Subject) -> tuple[set[str], dict[str, Check]]:
    """Return the names of failed checks, and all checks by name."""
    verdict = run_gate(subject)
    assert not verdict.passed
    return {c.name for c in verdict.failures}, {c.name: c for c in verdict.checks}


def alter(name: str, change: Callable[[np.ndarray], np.ndarray], *, honest: bool = False):
    """Return an edit of one initialiser; an honest one puts the digest right again."""

    def edit(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == name:
                values = change(numpy_helper.to_array(tensor).copy())
                tensor.CopyFrom(numpy_helper.from_array(values, name))
        if honest:
            set_metadata(model, "digest", digest(model))

    return edit


def set_metadata(model: onnx.ModelProto, key: str, value: str | None) -> None:
    metadata = {e.key: e.value for e in model.metadata_props if e.key != key}
    del model.metadata_props[:]
    helper.set_model_props(model, metadata | ({key: value} if value is not None else {}))


def one_ulp(values: np.ndarray) -> np.ndarray:
    values.flat[0] = np.nextafter(values.flat[0], np.float32(9))
    return values


def first_is_nan(values: np.ndarray) -> np.ndarray:
    values.flat[0] = np.nan
    return values


def test_the_file_as_exported_passes(exported: Path, make_subject: Make) -> None:
    verdict = run_gate(make_subject(exported))
    assert verdict.passed, [c.line() for c in verdict.failures]
    names = [c.name for c in verdict.checks]
    assert names == ["folding", "file", *STATIC, *RUNNING]
    numbers = {c.name: c.numbers for c in verdict.checks}
    assert set(numbers["parity"]) == {"batch_1", "batch_7", "limit"}
    assert 0 < numbers["accuracy"]["pytorch"] < 100
    assert numbers["agreement"]["images"] == 60


@pytest.mark.parametrize("name", ["stem.0.weight", "head.bias"])
def test_one_weight_by_the_last_bit(name: str, edited: Edit, make_subject: Make) -> None:
    failed, checks = outcome(make_subject(edited(alter(name, one_ulp))))
    assert failed == {"weights", "metadata"}
    assert name in checks["weights"].reason and checks["weights"].numbers["values_changed"] == 1
    assert "digest" in checks["metadata"].reason


def test_one_weight_under_a_corrected_digest(edited: Edit, make_subject: Make) -> None:
    failed, _ = outcome(make_subject(edited(alter("head.weight", one_ulp, honest=True))))
    assert failed == {"weights"}


def test_classes_swapped(edited: Edit, make_subject: Make) -> None:
    failed, _ = outcome(make_subject(edited(alter("head.weight", lambda w: w[::-1].copy()))))
    assert {"weights", "parity", "extremes", "reference", "agreement", "provider_cpu"} <= failed
    assert {"determinism", "batch_invariance", "contract"}.isdisjoint(failed)


def test_a_weight_that_is_not_a_number(edited: Edit, make_subject: Make) -> None:
    failed, _ = outcome(make_subject(edited(alter("head.bias", first_is_nan))))
    assert {"weights", "parity", "extremes", "reference", "provider_cpu"} <= failed


def test_wrong_mean_in_the_graph(edited: Edit, make_subject: Make) -> None:
    change = alter(SHIFT, lambda s: s + np.float32(0.02), honest=True)
    failed, checks = outcome(make_subject(edited(change)))
    assert {"normalisation", "parity", "extremes", "reference"} <= failed
    assert failed.isdisjoint({"weights", "metadata", "contract"})
    assert "shift is" in checks["normalisation"].reason


def test_wrong_mean_throughout(
    resnet: Checkpoint,
    card: DataCard,
    export: Callable[..., Path],
    make_subject: Make,
    tmp_path: Path,
) -> None:
    path = export(resnet, tmp_path / "m.onnx", card=replace(card, mean=(0.41, 0.5, 0.6)))
    failed, checks = outcome(make_subject(path))
    assert {"normalisation", "metadata", "parity"} <= failed
    assert "mean is (0.41, 0.5, 0.6), not (0.4, 0.5, 0.6)" in checks["metadata"].reason


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9])
def test_truncated(share: float, exported: Path, make_subject: Make, tmp_path: Path) -> None:
    content = exported.read_bytes()
    (tmp_path / "m.onnx").write_bytes(content[: int(share * len(content))])
    failed, checks = outcome(make_subject(tmp_path / "m.onnx"))
    assert "file" in failed
    assert {checks[name].status for name in (*STATIC, *RUNNING)} == {"skipped"}
    assert checks["parity"].reason == "the file could not be read"


def test_missing(make_subject: Make, tmp_path: Path) -> None:
    failed, checks = outcome(make_subject(tmp_path / "gone.onnx"))
    assert failed == {"file"}
    assert "FileNotFoundError" in checks["file"].reason


def test_float_input(edited: Edit, make_subject: Make) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT

    failed, checks = outcome(make_subject(edited(change)))
    assert failed == {"contract"}
    assert checks["contract"].reason == "input 'images' is float, not uint8"
    assert {checks[name].status for name in RUNNING} == {"skipped"}
    assert checks["parity"].reason == "the contract does not hold"


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def other_name(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "scores"
    model.graph.node[-1].output[0] = "scores"


def other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21


def other_operator(model: onnx.ModelProto) -> None:
    next(n for n in model.graph.node if n.op_type == "Relu").op_type = "Sin"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (fixed_batch, "has shape [2, 3, 16, 16], not ['batch', 3, 16, 16]"),
        (other_name, "outputs are ['scores'], not ['logits']"),
        (other_opset, "opset is [21], not 20"),
        (other_operator, "operators Sin are not of the contract"),
    ],
)
def test_other_contracts(
    change: Callable[[onnx.ModelProto], None], words: str, edited: Edit, make_subject: Make
) -> None:
    failed, checks = outcome(make_subject(edited(change)))
    assert "contract" in failed
    assert words in checks["contract"].reason


def test_two_additions_before_the_network(edited: Edit, make_subject: Make) -> None:
    def change(model: onnx.ModelProto) -> None:
        add = model.graph.node[2]
        assert add.op_type == "Add"
        extra = helper.make_node("Add", [add.output[0], SHIFT], ["shifted"])
        for node in model.graph.node:
            node.input[:] = ["shifted" if i == add.output[0] else i for i in node.input]
        model.graph.node.insert(3, extra)

    failed, _ = outcome(make_subject(edited(change)))
    assert "parity" in failed


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("growth", None, "growth missing"),
        ("classes", '["ant", "cat", "bee", "dog"]', "classes is ('ant', 'cat', 'bee', 'dog')"),
        ("classes", "ant, bee", "not that of tinygrow"),
        ("model", "other", "model is other, not tiny"),
        ("data", "digits", "data is 'digits', not 'toy'"),
        ("parameters", "many", "many"),
        ("test_accuracy", "0.75e3", "it is in percent"),
        ("growth", "{", "Expecting"),
    ],
)
def test_metadata_that_lies(
    key: str, value: str | None, words: str, edited: Edit, make_subject: Make
) -> None:
    path = edited(lambda model: set_metadata(model, key, value))
    failed, checks = outcome(make_subject(path))
    assert "metadata" in failed
    assert words in checks["metadata"].reason


def test_stated_accuracy_that_flatters(edited: Edit, make_subject: Make) -> None:
    path = edited(lambda model: set_metadata(model, "test_accuracy", "99.9"))
    failed, checks = outcome(make_subject(path))
    assert failed == {"accuracy"}
    assert "the file states 99.900 %" in checks["accuracy"].reason


@pytest.mark.parametrize("place", ["node", "metadata", "graph"])
def test_path_of_the_machine(place: str, edited: Edit, make_subject: Make) -> None:
    def change(model: onnx.ModelProto) -> None:
        trace = 'File "/srv/me/train.py", line 3'
        if place == "node":
            model.graph.node[3].metadata_props.add(key="trace", value=trace)
        elif place == "graph":
            model.graph.doc_string = trace
        else:
            set_metadata(model, "data_source", trace)

    failed, checks = outcome(make_subject(edited(change)))
    assert failed == {"self_contained"}
    assert "/srv/me/train.py" in checks["self_contained"].reason


def test_weights_in_another_file(exported: Path, make_subject: Make, tmp_path: Path) -> None:
    onnx.save_model(
        onnx.load(exported),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    failed, checks = outcome(make_subject(tmp_path / "m.onnx"))
    assert "self_contained" in failed
    assert "lies in another file" in checks["self_contained"].reason


def test_a_graph_that_does_not_fit_together(edited: Edit, make_subject: Make) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[3].input[0] = "nowhere"

    failed, checks = outcome(make_subject(edited(change)))
    assert {"checker", "parity"} <= failed
    assert "nowhere" in checks["checker"].reason
