import hashlib
import json
from pathlib import Path

import pytest

from tinygrow.deploy.published import published_products
from tinygrow.errors import TinygrowError


def write(folder: Path, precision: str, *, validated: bool = True, sha256: str = "") -> Path:
    path = folder / f"{precision}.onnx"
    path.write_bytes(precision.encode())
    stated = sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
    facts = {"file": path.name, "precision": precision, "validated": validated, "sha256": stated}
    path.with_suffix(".json").write_text(json.dumps(facts))
    return path


def test_products_come_with_their_sidecars_fp32_first(tmp_path: Path) -> None:
    for precision in ("int8", "fp16", "fp32"):
        write(tmp_path, precision)
    found = published_products(tmp_path)
    assert [product.precision for product in found] == ["fp32", "fp16", "int8"]
    assert found[2].path == tmp_path / "int8.onnx"
    assert found[2].sidecar_path == tmp_path / "int8.json"
    assert found[2].sha256 == hashlib.sha256(b"int8").hexdigest()


def test_what_was_refused_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, "fp32")
    write(tmp_path, "int8", validated=False)
    assert [product.precision for product in published_products(tmp_path)] == ["fp32"]
    write(tmp_path, "int8", validated=False).unlink()
    assert [product.precision for product in published_products(tmp_path)] == ["fp32"]


def test_nothing_published(tmp_path: Path) -> None:
    with pytest.raises(TinygrowError, match="has no product that passed the gate; run dvc repro"):
        published_products(tmp_path)


def test_a_product_without_verdicts(tmp_path: Path) -> None:
    write(tmp_path, "fp32").with_suffix(".json").unlink()
    with pytest.raises(TinygrowError, match=r"fp32\.onnx has no verdicts beside it"):
        published_products(tmp_path)


def test_a_product_that_is_gone(tmp_path: Path) -> None:
    write(tmp_path, "fp32")
    write(tmp_path, "int8").unlink()
    with pytest.raises(TinygrowError, match=r"int8.onnx is gone, but int8.json says"):
        published_products(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"validated": true}',
        '{"file": "fp32.onnx", "precision": "fp8", "validated": true, "sha256": ""}',
    ],
)
def test_damaged_verdicts(tmp_path: Path, text: str) -> None:
    write(tmp_path, "fp32").with_suffix(".json").write_text(text)
    with pytest.raises(TinygrowError, match="is not what the validate stage writes"):
        published_products(tmp_path)


def test_another_file_than_the_gate_saw(tmp_path: Path) -> None:
    write(tmp_path, "fp32", sha256="0" * 64)
    with pytest.raises(TinygrowError, match="is not the file that the gate saw"):
        published_products(tmp_path)
