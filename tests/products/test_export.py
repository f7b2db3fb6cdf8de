import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from tinygrow.architecture import Architecture
from tinygrow.checkpoint import Checkpoint, save_checkpoint
from tinygrow.data.prepared import DataCard, Split, save_prepared
from tinygrow.deploy.contract import KEYS, Contract
from tinygrow.deploy.sessions import open_session
from tinygrow.errors import TinygrowError
from tinygrow.networks.build import build_network
from tinygrow.observer import Observer
from tinygrow.products.export import SCALE, SHIFT, export_onnx, normalization
from tinygrow.products.fold import fold_batch_norm
from tinygrow.products.gate.subject import relative_difference, run_session
from tinygrow.products.metadata import build_metadata, digest
from tinygrow.products.reference import torch_logits
from tinygrow.products.variants import choose_images, write_fp16, write_int8
from tinygrow.settings.products import ExportSettings

ROOT = Path(__file__).resolve().parents[2]
EXPORT_SCRIPT = """
import sys
import torch
torch.set_num_threads(2)  # the tests themselves run with one
from pathlib import Path
from tinygrow.checkpoint import load_checkpoint
from tinygrow.data.prepared import load_card
from tinygrow.products.export import export_onnx
from tinygrow.products.fold import fold_batch_norm
from tinygrow.products.metadata import build_metadata
from tinygrow.settings.products import ExportSettings
checkpoint = load_checkpoint(Path("checkpoint.safetensors"))
card = load_card(Path("data.safetensors"))
metadata = build_metadata("tiny", checkpoint, card, float(sys.argv[1]))
export_onnx(fold_batch_norm(checkpoint.network), card, ExportSettings(), metadata, Path("m.onnx"))
import onnx
from tinygrow.data.prepared import load_split
from tinygrow.observer import Observer
from tinygrow.products.variants import choose_images, write_fp16, write_int8
splits = [load_split(Path("data.safetensors"), name) for name in ("train", "validation")]
images = choose_images(*splits, 40, 3)
write_fp16(onnx.load("m.onnx"), Path("h.onnx"))
write_int8(onnx.load("m.onnx"), images, ExportSettings().int8, Path("q.onnx"), Observer())
"""


def test_contract_of_the_file(exported: Path, card: DataCard) -> None:
    model = onnx.load(exported)
    (taken,), (given,) = model.graph.input, model.graph.output
    assert (taken.name, taken.type.tensor_type.elem_type) == ("images", TensorProto.UINT8)
    assert (given.name, given.type.tensor_type.elem_type) == ("logits", TensorProto.FLOAT)
    dims = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (taken, given)
    ]
    assert dims == [["batch", 3, 16, 16], ["batch", 4]]
    assert [node.op_type for node in model.graph.node[:4]] == ["Cast", "Mul", "Add", "Conv"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert set(metadata) == set(KEYS)
    assert Contract.from_metadata(metadata).mean == card.mean
    assert metadata["digest"] == digest(model)
    assert list(exported.parent.iterdir()) == [exported]


def test_weights_are_the_checkpoints_under_their_names(exported: Path, resnet: Checkpoint) -> None:
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(exported).graph.initializer}
    for name, right in fold_batch_norm(resnet.network).state_dict().items():
        assert stored[name].tobytes() == right.numpy().tobytes(), name
    assert SCALE in stored and SHIFT in stored


@pytest.mark.parametrize(("kind", "opset"), [("resnet", 18), ("mlp", 23), ("mlp", 26)])
def test_computes_what_pytorch_computes(
    kind: str,
    opset: int,
    request: pytest.FixtureRequest,
    export: Callable[..., Path],
    card: DataCard,
    tmp_path: Path,
) -> None:
    checkpoint = request.getfixturevalue(kind)
    path = export(checkpoint, tmp_path / "m.onnx", opset=opset)
    assert onnx.load(path).opset_import[0].version == opset
    images = np.random.default_rng(0).integers(0, 256, (5, *card.shape), np.uint8)
    right = torch_logits(checkpoint.network, card, images)
    assert relative_difference(run_session(open_session(path, "cpu"), images), right) < 1e-5


def test_border_is_padded_behind_the_normalisation(
    exported: Path, resnet: Checkpoint, card: DataCard
) -> None:
    """An image of the mean colour looks like padding; folded into the stem it would not."""
    colour = np.array(card.mean).reshape(1, 3, 1, 1) * 255
    images = np.broadcast_to(colour, (1, *card.shape)).round().astype(np.uint8)
    found = run_session(open_session(exported, "cpu"), images)
    assert relative_difference(found, torch_logits(resnet.network, card, images)) < 1e-5


def test_same_bytes_in_every_folder_and_process(
    exported: Path,
    resnet: Checkpoint,
    card: DataCard,
    splits: dict[str, Split],
    export: Callable[..., Path],
    tmp_path: Path,
) -> None:
    right = exported.read_bytes()
    assert export(resnet, tmp_path / "elsewhere" / "other.onnx").read_bytes() == right

    save_checkpoint(
        tmp_path / "checkpoint.safetensors", resnet.architecture, resnet.network, resnet.notes
    )
    save_prepared(tmp_path / "data.safetensors", card, splits)
    stated = {e.key: e.value for e in onnx.load(exported).metadata_props}["test_accuracy"]
    result = subprocess.run(
        [sys.executable, "-c", EXPORT_SCRIPT, stated],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "7",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / "m.onnx").read_bytes() == right

    model = onnx.load(exported)
    images = choose_images(splits["train"], splits["validation"], 40, 3)
    write_fp16(model, tmp_path / "half.onnx")
    write_int8(model, images, ExportSettings().int8, tmp_path / "int8.onnx", Observer())
    assert (tmp_path / "h.onnx").read_bytes() == (tmp_path / "half.onnx").read_bytes()
    assert (tmp_path / "q.onnx").read_bytes() == (tmp_path / "int8.onnx").read_bytes()


@pytest.mark.parametrize("product", ["exported", "halved", "quantized"])
def test_no_path_of_this_machine_in_the_bytes(product: str, request: pytest.FixtureRequest) -> None:
    content = request.getfixturevalue(product).read_bytes()
    for path in (ROOT, Path(torch.__file__).parent, Path(sys.prefix), Path.home()):
        if len(path.parts) > 1:
            assert str(path).encode() not in content
    assert b".py" not in content
    assert not re.search(rb"20\d\d-\d\d-\d\d", content)


def test_equal_and_zero_weights_keep_their_names(card: DataCard, tmp_path: Path) -> None:
    """A fresh network: every bias is zero, which an exporter likes to drop or merge."""
    architecture = Architecture(kind="mlp", input_shape=card.shape, classes=4, middle_widths=(4, 4))
    network = build_network(architecture, 0).eval()
    checkpoint = Checkpoint(architecture, network, {})
    metadata = build_metadata("fresh", checkpoint, card, 25.0)
    export_onnx(network, card, ExportSettings(), metadata, tmp_path / "m.onnx")
    stored = {t.name for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert set(network.state_dict()) <= stored


def test_normalization_in_one_mul_and_one_add(card: DataCard) -> None:
    scale, shift = normalization(card)
    for value in (0, 17, 255):
        right = (value / 255 - np.array(card.mean)) / np.array(card.std)
        np.testing.assert_allclose(value * scale.ravel() + shift.ravel(), right, atol=1e-6)


def test_channel_without_spread_is_refused(card: DataCard) -> None:
    with pytest.raises(TinygrowError, match=r"standard deviation of a channel is 0 \(\[0.2, 0.0"):
        normalization(replace(card, std=(0.2, 0.0, 0.3)))


def test_failed_export_leaves_nothing(
    resnet: Checkpoint, card: DataCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operator\nwith a long story")

    monkeypatch.setattr(torch.onnx, "export", broken)
    with pytest.raises(TinygrowError, match=r"to opset 20 \(no such operator\); try another"):
        export_onnx(
            fold_batch_norm(resnet.network), card, ExportSettings(), {"model": "m"}, tmp_path / "m"
        )
    assert list(tmp_path.iterdir()) == []
