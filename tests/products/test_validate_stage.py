"""The stages `export` and `validate`, and the command line around them."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from pipeline import paths
from pipeline.cli import cli
from pipeline.schema import SECTIONS
from pipeline.stages import compress as compress_stage
from pipeline.stages import export as export_stage
from tinygrow.checkpoint import Checkpoint, save_checkpoint
from tinygrow.data.prepared import DataCard, Split, save_prepared
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.products import latency
from tinygrow.settings.data import DigitsSettings
from tinygrow.settings.network import ResNetSettings
from tinygrow.settings.products import PRECISIONS


@pytest.fixture(scope="module")
def built(
    resnet: Checkpoint,
    card: DataCard,
    splits: dict[str, Split],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A pipeline folder in which the model `tiny` is exported; tests copy it."""
    folder = tmp_path_factory.mktemp("pipeline")
    settings = {name: asdict(make()) for name, make in SECTIONS.items()}
    settings["validate"]["batch_sizes"] = [1, 3]
    settings["export"]["int8"]["calibration_images"] = 16
    model = {"data": "toy", "seed": 0, "device": "cpu", "processes": 1, **settings}
    model["architecture"] = {"kind": "resnet", **asdict(ResNetSettings())}
    tree = {"data": {"toy": {"source": "digits", **asdict(DigitsSettings())}}}
    # JSON is YAML too.
    (folder / "params.yaml").write_text(json.dumps({**tree, "models": {"tiny": model}}))
    save_prepared(folder / paths.prepared("toy"), card, splits)
    save_checkpoint(
        folder / paths.finetuned("tiny"), resnet.architecture, resnet.network, resnet.notes
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        compress_stage.run("tiny", observer=Observer())
        export_stage.run("tiny", observer=Observer())
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in built.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(built)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(latency, "MAX_RUNS", latency.MIN_RUNS)
    return tmp_path


def validate() -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["validate", "tiny"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def verdicts() -> dict:
    return json.loads(paths.validation("tiny").read_text())


def sidecar(precision: str = "fp32") -> dict:
    return json.loads(paths.sidecar("tiny", precision).read_text())


def published() -> set[str]:
    return {path.name for path in paths.products_folder("tiny").glob("*.onnx")}


def set_param(block: str, key: str, value: object) -> None:
    tree = json.loads(Path("params.yaml").read_text())
    tree["models"]["tiny"][block][key] = value
    Path("params.yaml").write_text(json.dumps(tree))


def test_figures_of_export(folder: Path) -> None:
    figures = json.loads(paths.export_metrics("tiny").read_text())
    assert set(figures) == {"test_accuracy", "parameters", "multiply_adds", "file_bytes"}
    assert figures["file_bytes"] == paths.exported("tiny").stat().st_size
    for precision in PRECISIONS:
        model = onnx.load(paths.exported("tiny", precision))
        metadata = {e.key: e.value for e in model.metadata_props}
        assert float(metadata["test_accuracy"]) == figures["test_accuracy"]
        assert metadata["precision"] == precision


def test_sound_products_are_published(folder: Path) -> None:
    code, output = validate()
    assert code == 0, output
    table = verdicts()
    assert table["passed"] and list(table["products"]) == list(PRECISIONS)
    assert published() == {"fp32.onnx", "fp16.onnx", "int8.onnx"}
    for precision, entry in table["products"].items():
        assert entry["published"] and entry["reason"] == ""
        assert entry["required"] == (precision == "fp32")
        told = sidecar(precision)
        assert told["validated"] and told["precision"] == precision and told["reason"] == ""
        content = paths.product("tiny", precision).read_bytes()
        assert content == paths.exported("tiny", precision).read_bytes()
        assert told["sha256"] == hashlib.sha256(content).hexdigest()
        assert told["bytes"] == len(content)
        assert [e["batch"] for e in told["latency"]] == [1, 64]
        assert {e["provider"] for e in told["latency"]} == {"cpu"}
        assert told["compression"]["certified"] == (precision == "fp32")
        assert ("derived" in told["compression"]["said"]) == (precision != "fp32")
        assert set(told["checks"]) == set(entry["checks"])
        for name in ("accuracy", "agreement", "calibration"):
            assert told[name] == entry["checks"][name]["numbers"]


def test_calibration_never_reads_test_images(
    folder: Path, card: DataCard, splits: dict[str, Split]
) -> None:
    """Other test images with the same accuracy: not a byte of any product changes."""
    before = {p: paths.exported("tiny", p).read_bytes() for p in PRECISIONS}
    turned = torch.flip(splits["test"].images, dims=(0,))
    flipped = Split(turned.contiguous(), torch.flip(splits["test"].labels, dims=(0,)))
    save_prepared(paths.prepared("toy"), card, {**splits, "test": flipped})
    export_stage.run("tiny", observer=Observer())
    assert before == {p: paths.exported("tiny", p).read_bytes() for p in PRECISIONS}


def one_weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "head.weight")
    values = numpy_helper.to_array(tensor).copy()
    values.flat[3] += np.float32(1e-3)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def wrong_mean(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "normalize.shift")
    values = numpy_helper.to_array(tensor) + np.float32(0.1)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edit(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())

    return run


@pytest.mark.parametrize(
    ("sabotage", "failing", "words"),
    [
        (edit(one_weight), "weights", "head.weight: 1 of 16 values differ by up to 0.001"),
        (edit(wrong_mean), "normalisation", "but mean and std of the data set give"),
        (truncated, "file", "DecodeError"),
        (edit(float_input), "contract", "input 'images' is float, not uint8"),
    ],
)
def test_a_sabotaged_model_stops_the_pipeline(
    sabotage: Callable[[Path], None], failing: str, words: str, folder: Path
) -> None:
    set_param("export", "precisions", ["fp32"])
    sabotage(paths.exported("tiny"))
    code, output = validate()
    assert code == 1
    error = output.strip().splitlines()[-1]
    assert "models/tiny/exported/fp32.onnx does not pass the gate" in error
    assert f"{failing}: FAILED" in error and words in error
    table, told = verdicts(), sidecar()
    assert not table["passed"] and not told["validated"]
    checks = table["products"]["fp32"]["checks"]
    assert checks[failing]["status"] == "failed"
    assert words in checks[failing]["reason"] and words in told["reason"]
    assert told["latency"] == []
    assert published() == set()


def wrong_scale(model: onnx.ModelProto) -> None:
    names = {n.input[1] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in names:
            values = numpy_helper.to_array(tensor) / np.float32(100)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


@pytest.mark.parametrize(
    ("precision", "sabotage", "words"),
    [
        ("int8", edit(wrong_scale), "of the classes agree, limit 0.985"),
        ("fp16", edit(wrong_mean), "but mean and std of the data set give"),
        ("int8", Path.unlink, "int8.onnx does not exist; name it in export.precisions"),
    ],
)
def test_a_refused_product_is_left_out_and_the_rest_goes_on(
    precision: str, sabotage: Callable[[Path], None], words: str, folder: Path
) -> None:
    sabotage(paths.exported("tiny", precision))
    stale = paths.product("tiny", precision)
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier run")
    code, output = validate()
    assert code == 0, output
    table, told = verdicts(), sidecar(precision)
    assert table["passed"] and not table["products"][precision]["published"]
    assert words in table["products"][precision]["reason"] and words in told["reason"]
    assert not told["validated"] and told["latency"] == []
    assert published() == {f"{p}.onnx" for p in PRECISIONS if p != precision}
    assert f"products/{precision}.onnx: refused: " in output


def test_a_refused_product_that_is_required_stops_the_pipeline(folder: Path) -> None:
    edit(wrong_scale)(paths.exported("tiny", "int8"))
    set_param("validate", "required", ["fp32", "int8"])
    code, output = validate()
    assert code == 1
    error = output.strip().splitlines()[-1]
    assert "models/tiny/exported/int8.onnx does not pass the gate: " in error
    assert "fp32.onnx does not pass" not in error
    assert published() == {"fp32.onnx", "fp16.onnx"}  # what passed may be looked at
    assert verdicts()["products"]["int8"]["required"]


def test_what_cannot_be_made_is_no_failure_of_export(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise TinygrowError("int8 misses its budgets on validation images")

    monkeypatch.setattr(export_stage, "write_int8", broken)
    export_stage.run("tiny", observer=Observer())
    assert not paths.exported("tiny", "int8").exists()
    code, _ = validate()
    assert code == 0
    assert "int8 misses its budgets" in sidecar("int8")["reason"]
    assert published() == {"fp32.onnx", "fp16.onnx"}


def test_required_must_be_exported(folder: Path) -> None:
    set_param("export", "precisions", ["fp32"])
    set_param("validate", "required", ["int8"])
    code, output = validate()
    assert code == 1
    assert "validate.required is 'int8'; it must be one of fp32" in output


def test_export_with_a_wrong_mean_stops_the_pipeline(
    folder: Path, card: DataCard, splits: dict[str, Split]
) -> None:
    data = paths.prepared("toy")
    right = data.read_bytes()
    save_prepared(data, replace(card, mean=(0.1, 0.5, 0.6)), splits)
    export_stage.run("tiny", observer=Observer())
    data.write_bytes(right)
    code, output = validate()
    assert code == 1
    assert "mean is (0.1, 0.5, 0.6), not (0.4, 0.5, 0.6)" in output


def test_nothing_to_validate(folder: Path) -> None:
    paths.exported("tiny").unlink()
    code, output = validate()
    assert code == 1
    assert "fp32.onnx does not exist; run the export stage" in output
    assert not paths.sidecar("tiny").exists()


def test_a_snapshot_goes_where_it_is_told(folder: Path) -> None:
    snapshot = folder / "snapshot.safetensors"
    snapshot.write_bytes(paths.finetuned("tiny").read_bytes())
    paths.finetuned("tiny").unlink()
    paths.export_metrics("tiny").unlink()
    export_stage.run(
        "tiny", observer=Observer(), checkpoint=snapshot, output=folder / "snapshot.onnx"
    )
    assert (folder / "snapshot.onnx").read_bytes() == paths.exported("tiny").read_bytes()
    assert not paths.export_metrics("tiny").exists()


def test_compression_gives_the_same_bytes_and_says_that_nothing_went(folder: Path) -> None:
    class Listener(Observer):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, line: str) -> None:
            self.lines.append(line)

    files = [paths.compressed("tiny"), paths.certificate("tiny"), paths.uncompressed("tiny")]
    before = [file.read_bytes() for file in files]
    listener = Listener()
    compress_stage.run("tiny", observer=listener)
    assert [file.read_bytes() for file in files] == before
    assert "0 units REMOVED" in listener.lines[-1]
    figures = json.loads(paths.compress_metrics("tiny").read_text())
    assert figures["removed"] == 0 and figures["parameters"] == figures["parameters_before"] > 0


def test_a_certificate_that_says_what_is_not_so_stops_the_product(folder: Path) -> None:
    told = json.loads(paths.certificate("tiny").read_text())
    told["units"].append(
        {"layer": "stages.0.block0.conv1", "index": 0, "kind": "inactive", "bound": -1.0}
        | {"method": "interval", "margin": 1.0, "slack": 0.0, "action": "kept"}
    )
    paths.certificate("tiny").write_text(json.dumps(told))
    code, output = validate()
    assert code == 1
    assert "certificate: FAILED stages.0.block0.conv1[0]: it is not inactive" in output
    assert "fp32.onnx" not in published()
    assert not sidecar()["compression"]["certified"]
