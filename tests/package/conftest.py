"""A made-up model with everything that `package` and `benchmark` read."""

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.pipeline.tiny import read_demo, write_params
from tests.report.product import CLASSES, write_pipeline
from tinygrow.architecture import Architecture
from tinygrow.checkpoint import save_checkpoint
from tinygrow.deploy.contract import KEYS
from tinygrow.networks.build import build_network

FACTS = {
    "tinygrow_version": "0.1.0",
    "data": "tiles",
    "test_accuracy": "91.67",
    "parameters": "4919",
    "multiply_adds": "864123",
    "growth": '{"growth": {"method": "tiny"}, "seed": 3}',
    "versions": '{"onnx": "1.23.2", "torch": "2.15.0"}',
    "digest": "d1" * 32,
}


def sidecar(path: Path, precision: str) -> dict[str, Any]:
    return {
        "model": "toy",
        "precision": precision,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "validated": True,
        "accuracy": {"pytorch": 91.67, "onnx": 91.66 if precision == "fp32" else 91.2},
        "agreement": {"agreement": 0.9999},
        "calibration": {"onnx": 0.0123},
        "latency": [
            {"provider": "cpu", "batch": 1, "median_ms": 0.5, "runs": 9, "images_per_second": 2000}
        ],
        "machine": {"processor": "made up"},
    }


def publish(folder: Path, *precisions: str) -> None:
    """Turn the product of `folder` (`models/toy`) into several."""
    model = onnx.load(folder / "products" / "fp32.onnx")
    for precision in precisions:
        path = folder / "products" / f"{precision}.onnx"
        path.parent.mkdir(exist_ok=True)
        known = {entry.key: entry.value for entry in model.metadata_props}
        onnx.helper.set_model_props(model, dict.fromkeys(KEYS, "") | FACTS | known)
        model.doc_string = precision
        onnx.save(model, path)
        path.with_suffix(".json").write_text(json.dumps(sidecar(path, precision)))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline folder to be in, with the model `toy` in fp32 and int8; fp16 was refused."""
    folder = tmp_path / "pipeline"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_pipeline(folder)
    tree = read_demo()
    tree["data"] = {"tiles": tree["data"]["digits"]}
    tree["models"] = {"toy": tree["models"]["demo"] | {"data": "tiles"}}
    write_params(folder, tree)
    publish(folder / "models" / "toy", "fp32", "int8")
    verdicts = {
        "fp32": {"published": True, "reason": ""},
        "fp16": {"published": False, "reason": "agreement: too low"},
        "int8": {"published": True, "reason": ""},
    }
    validation = folder / "metrics" / "toy" / "validate.json"
    validation.write_text(json.dumps({"passed": True, "products": verdicts}))
    architecture = Architecture(
        kind="mlp", input_shape=(1, 8, 8), classes=len(CLASSES), middle_widths=(5,)
    )
    finetuned = folder / "models" / "toy" / "finetuned.safetensors"
    save_checkpoint(finetuned, architecture, build_network(architecture, 0), {})
    return folder
