"""The stages `export` and `validate`, and the command line around them."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, numpy_helper

from pipeline import paths
from pipeline.cli import cli
from pipeline.schema import SECTIONS
from pipeline.stages import export as export_stage
from tinygrow.checkpoint import Checkpoint, save_checkpoint
from tinygrow.data.prepared import DataCard, Split, save_prepared
from tinygrow.observer import Observer
from tinygrow.settings.data import DigitsSettings
from tinygrow.settings.network import ResNetSettings


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
    return tmp_path


def validate() -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["validate", "tiny"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def verdicts() -> tuple[dict, dict]:
    return json.loads(paths.validation("tiny").read_text()), json.loads(
        paths.sidecar("tiny").read_text()
    )


def test_figures_of_export(folder: Path) -> None:
    figures = json.loads(paths.export_metrics("tiny").read_text())
    assert set(figures) == {"test_accuracy", "parameters", "multiply_adds", "file_bytes"}
    assert figures["file_bytes"] == paths.onnx_model("tiny").stat().st_size
    metadata = {e.key: e.value for e in onnx.load(paths.onnx_model("tiny")).metadata_props}
    assert float(metadata["test_accuracy"]) == figures["test_accuracy"]


def test_a_sound_model_passes(folder: Path) -> None:
    code, output = validate()
    assert code == 0, output
    table, sidecar = verdicts()
    assert table["passed"] and sidecar["validated"]
    content = paths.onnx_model("tiny").read_bytes()
    assert sidecar["sha256"] == hashlib.sha256(content).hexdigest()
    assert [entry["batch"] for entry in sidecar["latency"]] == [1, 64]
    assert {entry["provider"] for entry in sidecar["latency"]} == {"cpu"}
    assert set(sidecar["checks"]) == set(table["checks"])


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
    sabotage(paths.onnx_model("tiny"))
    code, output = validate()
    assert code == 1
    error = output.strip().splitlines()[-1]
    assert "models/tiny/model.onnx does not pass the gate" in error
    assert f"{failing}: FAILED" in error and words in error
    table, sidecar = verdicts()
    assert not table["passed"] and not sidecar["validated"]
    assert table["checks"][failing]["status"] == "failed"
    assert words in table["checks"][failing]["reason"]
    assert sidecar["latency"] == []


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
    paths.onnx_model("tiny").unlink()
    code, output = validate()
    assert code == 1
    assert "model.onnx does not exist; run the export stage" in output
    assert not paths.sidecar("tiny").exists()


def test_a_snapshot_goes_where_it_is_told(folder: Path) -> None:
    snapshot = folder / "snapshot.safetensors"
    snapshot.write_bytes(paths.finetuned("tiny").read_bytes())
    paths.finetuned("tiny").unlink()
    paths.export_metrics("tiny").unlink()
    export_stage.run(
        "tiny", observer=Observer(), checkpoint=snapshot, output=folder / "snapshot.onnx"
    )
    assert (folder / "snapshot.onnx").read_bytes() == paths.onnx_model("tiny").read_bytes()
    assert not paths.export_metrics("tiny").exists()
