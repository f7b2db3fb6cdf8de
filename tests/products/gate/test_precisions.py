"""fp16 and int8 at the gate: what passes, and what each sabotage is found by."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.products.gate.test_sabotage import set_metadata
from tinygrow.observer import Observer
from tinygrow.products.gate import quality
from tinygrow.products.gate.check import Check
from tinygrow.products.gate.run import RUNNING, STATIC, run_gate
from tinygrow.products.gate.subject import Subject
from tinygrow.products.metadata import digest
from tinygrow.products.variants import Calibration, write_int8
from tinygrow.settings.products import QuantizationSettings

Make = Callable[..., Subject]
Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def spoilt(halved: Path, quantized: Path, tmp_path: Path, make_subject: Make):
    """Return what puts a changed copy of a product to the gate, under a corrected digest."""

    def run(precision: str, change: Change) -> tuple[set[str], dict[str, Check]]:
        model = onnx.load({"fp16": halved, "int8": quantized}[precision])
        change(model)
        set_metadata(model, "digest", digest(model))
        path = tmp_path / f"{precision}.onnx"
        path.write_bytes(model.SerializeToString())
        verdict = run_gate(make_subject(path, precision))
        return {c.name for c in verdict.failures}, {c.name: c for c in verdict.checks}

    return run


def alter(ending: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Return an edit of the first stored tensor whose name ends so."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name.endswith(ending))
        values = numpy_helper.to_array(tensor)
        changed = np.ascontiguousarray(change(values.copy()).astype(values.dtype))
        tensor.CopyFrom(numpy_helper.from_array(changed.reshape(values.shape), tensor.name))

    return edit


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_products_as_they_are_made_pass(
    precision: str, halved: Path, quantized: Path, make_subject: Make
) -> None:
    path = {"fp16": halved, "int8": quantized}[precision]
    verdict = run_gate(make_subject(path, precision))
    assert verdict.passed, [c.line() for c in verdict.failures]
    assert [c.name for c in verdict.checks] == ["folding", "file", *STATIC, *RUNNING]
    checks = {c.name: c for c in verdict.checks}
    assert checks["quantization"].status == ("passed" if precision == "int8" else "skipped")
    assert checks["parity"].numbers["limit"] == ("finite" if precision == "int8" else 0.01)
    assert checks["parity"].numbers["batch_7"] > 1e-6  # it is not the fp32 file


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_file_of_another_precision_is_refused(
    precision: str, exported: Path, make_subject: Make
) -> None:
    verdict = run_gate(make_subject(exported, precision))
    failed = {c.name: c for c in verdict.failures}
    said = "quantization missing" if precision == "int8" else "precision is 'fp32', not 'fp16'"
    assert said in failed["metadata"].reason
    assert "weights" in failed if precision == "fp16" else "quantization" in failed


def test_fp16_weight_by_the_last_bit(spoilt) -> None:
    failed, checks = spoilt("fp16", alter("stem.0.weight", lambda w: np.nextafter(w, w + 1)))
    assert "weights" in failed and "stem.0.weight" in checks["weights"].reason


def test_fp16_normalisation_in_half(spoilt) -> None:
    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name.startswith("normalize."):
                values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    failed, _ = spoilt("fp16", change)
    assert failed == {"normalisation"}


def test_fp16_that_overflows(spoilt) -> None:
    failed, checks = spoilt("fp16", alter("head.bias", lambda b: b * 0 + np.inf))
    assert {"weights", "parity", "extremes", "calibration", "provider_cpu"} <= failed
    assert "inf" in checks["parity"].reason


def test_int8_wrong_scale_of_weights(spoilt) -> None:
    failed, checks = spoilt("int8", alter(".weight_scale", lambda s: s * 3))
    assert "weights" in failed and "of its steps apart" in checks["weights"].reason


def test_int8_average_that_is_none(spoilt) -> None:
    failed, checks = spoilt("int8", alter(".mean_scale", lambda s: s * 2))
    assert "weights" in failed and ".mean is" in checks["weights"].reason


def test_int8_wrong_scale_of_activations(spoilt) -> None:
    """Every activation of one tensor is cut off: no stored weight tells, the answers do."""

    def change(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
        alter(node.input[1], lambda s: s / 100)(model)

    failed, _ = spoilt("int8", change)
    assert {"agreement", "provider_cpu"} <= failed
    assert "weights" not in failed


def test_int8_swapped_zero_points(spoilt) -> None:
    def change(model: onnx.ModelProto) -> None:
        points = {n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"}
        for name in points:
            alter(name, lambda z: 255 - z)(model)

    failed, _ = spoilt("int8", change)
    assert {"agreement", "accuracy", "provider_cpu"} <= failed


def test_int8_zero_point_of_weights(spoilt) -> None:
    failed, checks = spoilt("int8", alter(".weight_zero_point", lambda z: z + 5))
    assert {"weights", "quantization"} <= failed
    assert "zero points other than 0" in checks["quantization"].reason


def test_int8_scale_that_is_no_number(spoilt) -> None:
    failed, checks = spoilt("int8", alter(".weight_scale", lambda s: s * np.nan))
    assert {"weights", "quantization"} <= failed
    assert "is not positive" in checks["quantization"].reason


def test_int8_of_signed_activations(spoilt) -> None:
    def change(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
        tensor = next(t for t in model.graph.initializer if t.name == node.input[2])
        tensor.CopyFrom(numpy_helper.from_array(np.array(0, np.int8), tensor.name))

    failed, checks = spoilt("int8", change)
    assert "quantization" in failed and "is int8, not uint8" in checks["quantization"].reason


def test_int8_calibrated_on_garbage(
    exported: Path, calibration: Calibration, make_subject: Make, tmp_path: Path
) -> None:
    """Black images alone: real ones go far beyond the ranges that were found."""
    black = Calibration(
        images=np.zeros_like(calibration.images[:4]),
        judged=calibration.judged,
        labels=calibration.labels,
    )
    settings = QuantizationSettings(keep_float="none")
    write_int8(onnx.load(exported), black, settings, tmp_path / "int8.onnx", Observer())
    verdict = run_gate(make_subject(tmp_path / "int8.onnx", "int8"))
    assert {"agreement", "accuracy"} <= {c.name for c in verdict.failures}
    assert {"weights", "quantization", "contract", "metadata"}.isdisjoint(
        {c.name for c in verdict.failures}
    )


def test_steps_are_of_int8_alone(halved: Path, make_subject: Make, tmp_path: Path) -> None:
    model = onnx.load(halved)
    scale, point = (
        numpy_helper.from_array(np.array(1, kind), name)
        for kind, name in ((np.float32, "one"), (np.uint8, "none"))
    )
    model.graph.initializer.extend([scale, point])
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["raw", "one", "none"], ["steps"]),
            helper.make_node("DequantizeLinear", ["steps", "one", "none"], ["logits"]),
        ]
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    verdict = run_gate(make_subject(tmp_path / "m.onnx", "fp16"))
    checks = {c.name: c for c in verdict.failures}
    assert "operators DequantizeLinear, QuantizeLinear are not" in checks["contract"].reason


def test_tensorrt_is_not_asked_for_unsigned_activations(
    quantized: Path, make_subject: Make
) -> None:
    verdict = run_gate(make_subject(quantized, "int8"))
    (check,) = (c for c in verdict.checks if c.name == "provider_tensorrt")
    assert check.status == "skipped" and "signed activations alone" in check.reason


def test_a_product_that_grows_overconfident(halved: Path, make_subject: Make) -> None:
    """Logits times 30: every class stays, and the probabilities lie."""
    logits = np.log(np.array([[0.9, 0.1]] * 10, np.float32))
    subject = replace(make_subject(halved, "fp16"), labels=np.array([0] * 9 + [1]))
    vars(subject).update(torch_logits=logits, onnx_logits=30 * logits)
    check = quality.calibration(subject)
    assert check.status == "failed" and "in the same bins, limit 0.01" in check.reason
    assert quality.agreement(subject).status == "passed"


def test_expected_calibration_error() -> None:
    ece = quality.expected_calibration_error
    sure = np.log(np.array([[0.9, 0.1]] * 10, np.float32))
    nine_of_ten = np.array([0] * 9 + [1])
    assert ece(sure, nine_of_ten) == pytest.approx(0, abs=1e-6)
    assert ece(sure, np.zeros(10, int)) == pytest.approx(0.1, abs=1e-6)
    # Two bins of half the images each, by hand: 0.6 sure and all right, 0.9 sure and all wrong.
    two = np.log(np.array([[0.6, 0.4], [0.9, 0.1]], np.float32))
    assert ece(two, np.array([0, 1])) == pytest.approx((0.4 + 0.9) / 2, abs=1e-6)
    assert np.isnan(ece(sure * np.float32(np.nan), nine_of_ten))
    assert ece(np.array([[1000.0, 0.0]], np.float32), np.array([0])) == 0


def test_an_image_that_slips_into_another_bin_does_not_count(
    halved: Path, make_subject: Make
) -> None:
    """Confidence 0.6 is a border of two bins, each of which holds a gap of the other sign."""
    shares = np.array([0.6 - 1e-6, 0.55, 0.65], np.float64)
    logits = np.log(np.stack([shares, 1 - shares], 1)).astype(np.float32)
    moved = np.log(np.stack([shares + 2e-6, 1 - shares - 2e-6], 1)).astype(np.float32)
    labels = np.array([0, 1, 0])
    assert quality.expected_calibration_error(moved, labels) != pytest.approx(
        quality.expected_calibration_error(logits, labels), abs=0.01
    )
    subject = replace(make_subject(halved, "fp16"), labels=labels)
    vars(subject).update(torch_logits=logits, onnx_logits=moved)
    check = quality.calibration(subject)
    assert check.status == "passed"


def test_types_of_the_products(halved: Path, quantized: Path) -> None:
    for path in (halved, quantized):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
