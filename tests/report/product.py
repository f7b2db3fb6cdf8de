"""A made-up product: prepared images, an ONNX file and the figures of every stage."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.report.synthetic import write_run
from tinygrow.data.prepared import SPLITS, DataCard, Split, save_prepared
from tinygrow.deploy.contract import Contract

PARAMS = """\
data:
  tiles: {source: digits, size: 8, test_fraction: 0.2, validation_fraction: 0.1, seed: 0}
models:
  toy:
    data: tiles
    seed: 3
    architecture: {kind: resnet, base_width: 8}
    growth: {extensions: 4, training: {learning_rate: 1e-05}}
"""
CLASSES = ("zero", "<one> & more", "two/2")
FIGURES: dict[str, dict[str, Any]] = {
    "grow": {
        "validation_accuracy": 81.25,
        "parameters": 4919,
        "multiply_adds": 864123,
        "images_seen": 4017,
        "statistics_images": 3217,
        "rejected": 1,
        "seconds": 31.5,
    },
    "finetune": {
        "validation_accuracy": 95.5,
        "validation_loss": 0.0318,
        "train_loss": 0.03,
        "images_seen": 10017,
        "seconds": 20.25,
    },
    "export": {
        "test_accuracy": 91.67,
        "parameters": 4919,
        "multiply_adds": 864123,
        "file_bytes": 21345,
    },
    "validate": {
        "passed": True,
        "failed": 0,
        "skipped": 1,
        "checks": {
            "parity": {
                "status": "passed",
                "numbers": {"relative_difference": 1.25e-07, "limit": 0.0001},
                "reason": "",
            },
            "accuracy": {
                "status": "passed",
                "numbers": {"pytorch": 91.67, "onnx": 91.66, "limit": 0.02},
                "reason": "",
            },
            "provider_cuda": {
                "status": "SKIPPED",
                "numbers": {},
                "reason": "no NVIDIA driver <none>",
            },
        },
    },
}
CERTIFICATE: dict[str, Any] = {
    "format": 1,
    "before": {"parameters": 4919, "multiply_adds": 864123},
    "after": {"parameters": 4411, "multiply_adds": 801234},
    "layers": [
        {
            "layer": "stages.0.block0.conv1",
            "units": 8,
            "inactive": 2,
            "active": 1,
            "refuted": 4,
            "unknown": 1,
            "removed": 2,
        }
    ],
    "units": [
        {"layer": "stages.0.block0.conv1", "index": 1, "method": "interval", "action": "removed"},
        {"layer": "stages.0.block0.conv1", "index": 3, "method": "interval", "action": "kept"},
    ],
    "counts": {"proved": 3, "refuted": 9, "unknown": 1, "removed": 2},
    "notes": ["stem.0: 1 channels <stay>"],
    "settings": {"stability": {"bounds": "interval", "milp": "off"}},
}
SIDECAR = {
    "model": "toy",
    "precision": "fp32",
    "file": "fp32.onnx",
    "sha256": "ab" * 32,
    "bytes": 21345,
    "validated": True,
    "reason": "",
    "accuracy": {"pytorch": 91.67, "onnx": 91.66},
    "agreement": {"agreement": 1.0},
    "calibration": {"onnx": 0.0123},
    "latency": [
        {
            "provider": "cpu",
            "batch": batch,
            "median_ms": median,
            "p90_ms": 2 * median,
            "runs": 100,
            "warm_up": 5,
            "images_per_second": 1e3 * batch / median,
        }
        for batch, median in ((1, 0.4125), (64, 3.25))
    ],
    "machine": {"processor": "x86_64", "system": "Linux"},
}


REFUSED = {
    "precision": "int8",
    "file": "int8.onnx",
    "sha256": "cd" * 32,
    "bytes": 5432,
    "validated": False,
    "reason": "agreement: FAILED 0.970000 of the classes agree <limit 0.985>",
    "accuracy": {"pytorch": 91.67, "onnx": 88.5},
    "agreement": {"agreement": 0.97},
    "calibration": {},
    "latency": [],
}


def card() -> DataCard:
    return DataCard(
        name="tiles",
        source="made up for a test & <nothing> else.",
        classes=CLASSES,
        shape=(1, 8, 8),
        mean=(0.5,),
        std=(0.25,),
        counts={"train": 1000, "validation": 111, "test": 24},
    )


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images whose class is their brightest third, the last one labelled wrongly."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 60, (count, 1, 8, 8), dtype=np.uint8)
    for i, label in enumerate(labels):
        pixels[i, 0, :, 2 * label : 2 * label + 2] = 220
    labels[-1] = (labels[-1] + 1) % 3
    return pixels, labels


def write_onnx(path: Path) -> None:
    """Write a classifier by the column pair that is brightest."""
    weights = np.zeros((64, 3), np.float32)
    for label in range(3):
        columns = np.zeros((8, 8), np.float32)
        columns[:, 2 * label : 2 * label + 2] = 0.01
        weights[:, label] = columns.ravel()
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    contract = Contract(model="toy", classes=CLASSES, shape=(1, 8, 8), mean=(0.5,), std=(0.25,))
    helper.set_model_props(
        model,
        {"model": "toy", "classes": json.dumps(CLASSES), "input": contract.input_json()},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_pipeline(folder: Path, **changes: Any) -> None:
    """Write everything that the report stage of the model `toy` reads."""
    (folder / "params.yaml").write_text(PARAMS)
    tables = write_run(folder, **changes)
    metrics, models = folder / "metrics/toy", folder / "models/toy"
    metrics.mkdir(parents=True)
    models.mkdir(parents=True)
    tables["growth.csv"].rename(metrics / "growth.csv")
    tables["finetune.csv"].rename(metrics / "finetune.csv")
    tables["growth.json"].rename(models / "growth.json")
    for stage, figures in FIGURES.items():
        (metrics / f"{stage}.json").write_text(json.dumps(figures))
    (models / "certificate.json").write_text(json.dumps(CERTIFICATE))
    validate = metrics / "validate.json"
    table = {"passed": True, "products": {"fp32": json.loads(validate.read_text())}}
    validate.write_text(json.dumps(table))
    (models / "products").mkdir()
    (models / "products/fp32.json").write_text(json.dumps(SIDECAR))
    (models / "products/int8.json").write_text(json.dumps(REFUSED))
    write_onnx(models / "products/fp32.onnx")
    pixels, labels = images(24)
    splits = {
        which: Split(torch.from_numpy(pixels.copy()), torch.from_numpy(labels.copy()))
        for which in SPLITS
    }
    save_prepared(folder / "data/tiles.safetensors", card(), splits)
