"""Small random networks, a made-up data set, and one exported file for all tests."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.checkpoint import Checkpoint
from tinygrow.data.prepared import DataCard, Split
from tinygrow.networks.build import build_network
from tinygrow.observer import Observer
from tinygrow.products.export import export_onnx
from tinygrow.products.fold import fold_batch_norm
from tinygrow.products.gate.subject import Subject
from tinygrow.products.metadata import build_metadata
from tinygrow.products.reference import accuracy, torch_logits
from tinygrow.products.variants import Calibration, write_fp16, write_int8
from tinygrow.settings.products import (
    ExportSettings,
    Precision,
    QuantizationSettings,
    ValidateSettings,
)

SHAPE = (3, 16, 16)
CLASSES = ("ant", "bee", "cat", "dog")
NOTES = {
    "seed": 3,
    "growth": {"method": "tiny", "extensions": 2, "final_widths": [3, 4]},
    "finetune": {"epochs": 1, "validation_accuracy": 50.0},
}


@torch.no_grad()
def randomize(network: nn.Module, seed: int) -> nn.Module:
    """Give every parameter and running statistic a value of its own."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
            for tensor in (module.running_var, module.weight):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.copy_(torch.randn(module.bias.shape, generator=generator) / 4)
    return network.eval()


def blocks() -> np.ndarray:
    """Return 60 images of 4 x 4 squares, uint8."""
    flat = np.random.default_rng(5).integers(0, 256, (60, 3, 4, 4), np.uint8)
    return flat.repeat(4, axis=2).repeat(4, axis=3)


def make_checkpoint(kind: str) -> Checkpoint:
    if kind == "mlp":
        architecture = Architecture(
            kind="mlp", input_shape=SHAPE, classes=len(CLASSES), middle_widths=(5, 6)
        )
    else:
        architecture = Architecture(
            kind="resnet",
            input_shape=SHAPE,
            classes=len(CLASSES),
            stage_widths=(2, 4),
            blocks=(1, 1),
            middle_widths=(3, 4),
        )
    network = randomize(build_network(architecture, 0), 1)
    # A random network names one class for nearly every image; nothing that spoils it would show.
    with torch.no_grad():
        network.head.bias -= network((torch.from_numpy(blocks()).float() / 255 - 0.5) / 0.25).mean(
            0
        )
    return Checkpoint(architecture, network, NOTES)


@pytest.fixture(scope="session")
def resnet() -> Checkpoint:
    return make_checkpoint("resnet")


@pytest.fixture(scope="session")
def mlp() -> Checkpoint:
    return make_checkpoint("mlp")


@pytest.fixture(scope="session")
def card() -> DataCard:
    return DataCard(
        name="toy",
        source="random squares",
        classes=CLASSES,
        shape=SHAPE,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.25),
        counts={"train": 8, "validation": 4, "test": 60},
    )


@pytest.fixture(scope="session")
def test_split(resnet: Checkpoint, card: DataCard) -> Split:
    """60 images of which the network gets about three quarters right."""
    rng, images = np.random.default_rng(6), blocks()
    labels = torch_logits(resnet.network, card, images).argmax(1)
    wrong = rng.random(60) < 0.25
    labels = np.where(wrong, (labels + 1) % len(CLASSES), labels)
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


Exporter = Callable[..., Path]


@pytest.fixture(scope="session")
def export(card: DataCard, test_split: Split) -> Exporter:
    """Return a function that exports a checkpoint as the stage does."""
    right_card = card

    def run(
        checkpoint: Checkpoint, path: Path, *, card: DataCard = right_card, opset: int = 20
    ) -> Path:
        folded = fold_batch_norm(checkpoint.network)
        logits = torch_logits(folded, right_card, test_split.images.numpy())
        percent = accuracy(logits, test_split.labels.numpy())
        metadata = build_metadata("tiny", checkpoint, card, percent)
        export_onnx(folded, card, ExportSettings(opset=opset), metadata, path)
        return path

    return run


@pytest.fixture(scope="session")
def exported(
    resnet: Checkpoint, export: Exporter, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The residual network's file; tests leave it as it is."""
    return export(resnet, tmp_path_factory.mktemp("exported") / "model.onnx")


@pytest.fixture(scope="session")
def halved(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in fp16; tests leave it as it is."""
    path = tmp_path_factory.mktemp("halved") / "fp16.onnx"
    write_fp16(onnx.load(exported), path)
    return path


@pytest.fixture(scope="session")
def calibration(test_split: Split) -> Calibration:
    """Images that the tests of int8 take for those of training and validation."""
    images = test_split.images.numpy()
    return Calibration(images=images, judged=images, labels=test_split.labels.numpy())


@pytest.fixture(scope="session")
def quantized(
    exported: Path, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same in int8; tests leave it as it is."""
    path = tmp_path_factory.mktemp("quantized") / "int8.onnx"
    write_int8(onnx.load(exported), calibration, QuantizationSettings(), path, Observer())
    return path


@pytest.fixture(scope="session")
def make_subject(resnet: Checkpoint, card: DataCard, test_split: Split) -> Callable[..., Subject]:
    """Return a function that puts a file under test, with settings of the gate as keywords."""

    def make(
        path: Path, precision: Precision = "fp32", budget: dict | None = None, **settings: object
    ) -> Subject:
        base = ValidateSettings(batch_sizes=(1, 7))
        if budget:
            settings[precision] = replace(base.budget(precision), **budget)
        return Subject(
            path=path,
            precision=precision,
            name="tiny",
            opset=20,
            network=resnet.network,
            card=card,
            images=test_split.images.numpy(),
            labels=test_split.labels.numpy(),
            settings=replace(base, **settings),
            observer=Observer(),
        )

    return make


@pytest.fixture
def edited(exported: Path, tmp_path: Path) -> Callable[[Callable[[onnx.ModelProto], None]], Path]:
    """Return a function that writes a changed copy of the exported file."""

    def edit(change: Callable[[onnx.ModelProto], None]) -> Path:
        model = onnx.load(exported)
        change(model)
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return edit


@pytest.fixture(scope="session")
def splits(test_split: Split) -> dict[str, Split]:
    """All three splits of a prepared data set; each has tensors of its own."""
    return {
        name: Split(test_split.images.clone(), test_split.labels.clone())
        for name in ("train", "validation", "test")
    }
