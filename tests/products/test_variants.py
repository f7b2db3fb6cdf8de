"""fp16 and int8 as they are made from the fp32 file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from tinygrow.architecture import Architecture
from tinygrow.checkpoint import Checkpoint
from tinygrow.data.prepared import DataCard, Split
from tinygrow.deploy.contract import KEYS
from tinygrow.deploy.sessions import open_session
from tinygrow.errors import TinygrowError
from tinygrow.networks.build import build_network
from tinygrow.observer import Observer
from tinygrow.products import quantize, ranges, sensitivity
from tinygrow.products.gate.subject import relative_difference, run_session
from tinygrow.products.graph import sort_nodes
from tinygrow.products.metadata import digest
from tinygrow.products.quiet import onnxruntime_tools
from tinygrow.products.variants import Calibration, choose_images, quantise, write_fp16
from tinygrow.settings.products import QuantizationSettings


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    return run_session(open_session(path, "cpu"), images)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_fp16_computes_nearly_the_same_between_the_same_ends(
    exported: Path, halved: Path, test_split: Split
) -> None:
    full, half = onnx.load(exported), onnx.load(halved)
    assert half.graph.input == full.graph.input and half.graph.output == full.graph.output
    assert operators(half)[:5] == ["Cast", "Mul", "Add", "Cast", "Conv"]
    images = test_split.images.numpy()
    assert 0 < relative_difference(logits(halved, images), logits(exported, images)) < 0.01
    stored = {t.name: t.data_type for t in half.graph.initializer}
    assert stored["normalize.scale"] == stored["normalize.shift"] == TensorProto.FLOAT
    assert stored["stem.0.weight"] == stored["head.bias"] == TensorProto.FLOAT16
    assert halved.stat().st_size < exported.stat().st_size
    told = metadata(half)
    assert set(told) == set(KEYS) and told["precision"] == "fp16"
    assert told["digest"] == digest(half) != metadata(full)["digest"]


def test_weights_beyond_float16_become_its_ends(
    card: DataCard, export: Callable[..., Path], tmp_path: Path
) -> None:
    architecture = Architecture(kind="mlp", input_shape=card.shape, classes=4, middle_widths=(4, 4))
    network = build_network(architecture, 0).eval()
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([1e6, -1e6, 1e-9, 0.0]))
    path = export(Checkpoint(architecture, network, {}), tmp_path / "fp32.onnx")
    write_fp16(onnx.load(path), tmp_path / "fp16.onnx")
    stored = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "fp16.onnx").graph.initializer
    }
    tiny = float(np.finfo(np.float16).smallest_subnormal)
    assert stored["head.bias"].tolist() == [65504, -65504, tiny, 0]


def test_int8_is_what_it_says(exported: Path, quantized: Path, test_split: Split) -> None:
    model = onnx.load(quantized)
    told = json.loads(metadata(model)["quantization"])
    assert metadata(model)["precision"] == "int8"
    assert told["calibration_images"] == 60 and told["weight_bits"] == 7
    assert told["quantized_units"] > 0
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = [v for k, v in stored.items() if k.endswith(".weight_quantized")]
    assert weights and all(w.dtype == np.int8 and np.abs(w).max() <= 64 for w in weights)
    points = [n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert points and {stored[name].dtype for name in points} == {np.dtype(np.uint8)}
    assert [o.domain for o in model.opset_import] == [""]
    images = test_split.images.numpy()
    assert relative_difference(logits(quantized, images), logits(exported, images)) < 0.3


def test_ranges_are_those_of_the_activations(
    exported: Path, calibration: Calibration, resnet: Checkpoint, card: DataCard
) -> None:
    model = quantize.inferred(onnx.load(exported))
    found = ranges.calibrate(model, calibration.images, QuantizationSettings(), Observer())
    right = logits(exported, calibration.images)
    low, high = found["logits"]
    assert 0 <= (right.min() - low) / abs(low) < 2e-3 and 0 <= (high - right.max()) / high < 2e-3
    normalized = (np.array([[[0.0, 1.0]]]) - np.array(card.mean)[:, None, None]) / np.array(
        card.std
    )[:, None, None]
    low, high = found[next(n for n in model.graph.node if n.op_type == "Add").output[0]]
    assert low <= normalized.min() + 0.1 and high >= normalized.max() - 0.1


def test_rounding_of_ranges_forgets_the_last_bits_and_widens() -> None:
    for value in (1.0, 0.1, 3e-5, 1234.567, -0.7, -1e9):
        rounded = ranges._outwards(value)
        assert abs(value) <= abs(rounded) <= 1.002 * abs(value) and np.sign(rounded) == np.sign(
            value
        )
    assert ranges._outwards(0.1) == ranges._outwards(0.1 * (1 + 1e-7))
    assert ranges._outwards(0.0) == 0


def test_percentile_cuts_both_tails() -> None:
    edges = np.linspace(-5, 5, 11).astype(np.float32)
    counts = np.array([1, 0, 0, 0, 40, 50, 8, 0, 0, 1])
    assert ranges._percentile(counts, edges, 97.0) == (-1.0, 2.0)
    assert ranges._percentile(counts, edges, 100.0) == (-5.0, 5.0)


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_cut_ranges_lie_inside_of_the_whole_ones(
    method: str, exported: Path, calibration: Calibration
) -> None:
    model = quantize.inferred(onnx.load(exported))
    few = calibration.images[:4]
    whole = ranges.calibrate(model, few, QuantizationSettings(), Observer())
    settings = QuantizationSettings(calibration=method, percentile=95.0)
    cut = ranges.calibrate(model, few, settings, Observer())
    assert all(whole[k][0] <= cut[k][0] <= cut[k][1] <= whole[k][1] for k in whole)
    assert cut != whole


def test_units_are_layers_and_skips(exported: Path) -> None:
    names = [unit.name for unit in quantize.units(onnx.load(exported))]
    assert {"stem.0", "head"} <= set(names)
    assert any(name.endswith(".Add") for name in names)
    assert not any("normalize" in name for name in names)
    assert len(names) == len(set(names))


def test_the_layer_that_hurts_stays_in_float(exported: Path, calibration: Calibration) -> None:
    """One output of the stem is a million times the others: its layer's one scale loses those."""
    model = onnx.load(exported)
    stem = next(t for t in model.graph.initializer if t.name == "head.weight")
    values = numpy_helper.to_array(stem).copy()
    values[:, 0] *= 1e-3
    stem.CopyFrom(numpy_helper.from_array(values, stem.name))
    reader = next(n for n in model.graph.node if "head.weight" in n.input)
    boost = numpy_helper.from_array(
        np.array([1e3] + [1.0] * (values.shape[1] - 1), np.float32), "boost"
    )
    model.graph.initializer.append(boost)
    at = list(model.graph.node).index(reader)
    model.graph.node.insert(
        at, onnx.helper.make_node("Mul", [reader.input[0], "boost"], ["boosted"], name="boost")
    )
    model.graph.node[at + 1].input[0] = "boosted"
    settings = QuantizationSettings(min_agreement=0.9, max_accuracy_loss=10.0)
    choice, count = quantise(model, calibration, settings, Observer())
    assert choice.in_float[0].name == "head"
    assert len(choice.in_float) < count
    none = QuantizationSettings(keep_float="none", min_agreement=0.9, max_accuracy_loss=10.0)
    worse, _ = quantise(model, calibration, none, Observer())
    assert worse.in_float == () and worse.agreement < choice.agreement


def test_budgets_that_no_choice_keeps_make_no_product(
    exported: Path, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "_holds", lambda *args: False)
    with pytest.raises(TinygrowError, match=r"int8 misses its budgets .* with \d+ of \d+ units in"):
        quantise(onnx.load(exported), calibration, QuantizationSettings(), Observer())


def test_a_candidate_that_does_not_run_is_one_clear_error(
    exported: Path, calibration: Calibration
) -> None:
    """It opens, and fails at its first batch: no reason for a traceback, or to end the pipeline."""
    model = onnx.load(exported)
    shape = numpy_helper.from_array(np.array([5, 7], np.int64), "five")
    model.graph.initializer.append(shape)
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(onnx.helper.make_node("Reshape", ["raw", "five"], ["logits"], name="r"))
    words = r"fails on the candidate for int8 \(.*Reshape.*\); leave int8 out of export"
    with pytest.raises(TinygrowError, match=words):
        sensitivity.logits_of(model, calibration.judged)
    with pytest.raises(TinygrowError, match=words):
        ranges.calibrate(
            quantize.inferred(model), calibration.images, QuantizationSettings(), Observer()
        )


def test_a_budget_is_held_with_one_standard_error_to_spare() -> None:
    settings = QuantizationSettings(min_agreement=0.98, max_accuracy_loss=0.5)

    def holds(agreement: float, loss: float, images: int) -> bool:
        choice = sensitivity.Choice(
            model=onnx.ModelProto(), in_float=(), agreement=agreement, accuracy_loss=loss
        )
        return sensitivity._holds(choice, settings, images)

    assert holds(0.985, 0.5, 1000) and not holds(0.985, 0.5, 400)  # errors of 0.38 and 0.61 points
    assert holds(1.0, -3.0, 1) and not holds(1.0, 0.51, 1000)


def test_how_many_are_tried_in_float() -> None:
    assert sensitivity._counts(12) == [1, 2, 3, 4, 5, 6, 8, 10]
    assert sensitivity._counts(1) == []


def test_images_are_chosen_by_seed_and_never_twice(splits: dict[str, Split]) -> None:
    train, validation = splits["train"], splits["validation"]
    numbered = Split(torch.arange(60, dtype=torch.uint8).reshape(60, 1, 1, 1), train.labels)
    one, same = (choose_images(numbered, validation, 20, 3) for _ in range(2))
    assert (one.images == same.images).all() and len(np.unique(one.images)) == 20
    assert (one.images != choose_images(numbered, validation, 20, 4).images).any()
    assert len(choose_images(numbered, validation, 512, 3).images) == 60
    assert len(one.judged) == len(one.labels) == 60
    nothing = Split(validation.images[:0], validation.labels[:0])
    stand_in = choose_images(numbered, nothing, 20, 3)
    assert len(stand_in.judged) == 40 and not {*stand_in.judged.ravel()} & {*one.images.ravel()}


def test_nodes_are_sorted_by_what_they_read(exported: Path) -> None:
    model = onnx.load(exported)
    right = [node.output[0] for node in model.graph.node]
    for node in list(model.graph.node)[::2]:
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        model.graph.node.remove(node)
        model.graph.node.append(copy)
    sort_nodes(model.graph)
    assert {n.output[0] for n in model.graph.node} == set(right)
    onnx.checker.check_model(model)
    model.graph.node[5].input[0] = "nowhere"
    with pytest.raises(TinygrowError, match="reads what no node before it makes"):
        sort_nodes(model.graph)


def test_tools_leave_pythons_path_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    before = list(sys.path)
    with onnxruntime_tools():
        print("chatter")
        assert len(sys.path) == len(before) + 1
    assert sys.path == before and capsys.readouterr().out == ""


def test_a_converter_that_fails_is_one_clear_error(
    exported: Path, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("inside")

    with onnxruntime_tools():
        import onnxruntime.quantization
        import onnxruntime.transformers.float16
    monkeypatch.setattr(onnxruntime.quantization, "QDQQuantizer", broken)
    monkeypatch.setattr(onnxruntime.transformers.float16, "convert_float_to_float16", broken)
    model = onnx.load(exported)
    with pytest.raises(TinygrowError, match=r"float16 .* \(KeyError: 'inside'\); leave fp16 out"):
        write_fp16(model, Path("unused"))
    with pytest.raises(TinygrowError, match=r"quantiser .* \(KeyError: 'inside'\); leave int8 out"):
        quantise(model, calibration, QuantizationSettings(), Observer())
