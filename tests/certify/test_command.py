"""`certify` on a model under models/, on a folder, and on what is neither."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from tests.certify.files import Files


def _model(files: Files) -> Path:
    """Put the three files where stages write them; return the folder of params.yaml."""
    home, model = files.folder / "home", files.folder / "home" / "models" / "toy"
    (model / "products").mkdir(parents=True)
    certificate, before, product = files.paths
    for source, target in (
        (certificate, model / "certificate.json"),
        (before, model / "uncompressed.onnx"),
        (product, model / "products" / "fp32.onnx"),
    ):
        target.write_bytes(source.read_bytes())
    return home


def _run(home: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["-C", str(home), "certify", *arguments])
    return result.exit_code, result.output


def test_a_model_and_a_folder_are_certified(dense: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dense.folder)
    home = _model(dense)
    for name in ("toy", str(dense.folder), "models/toy"):
        code, text = _run(home, name)
        assert code == 0, text
        assert "5 units: 5 checked, 0 trusted, 0 refused" in text
        assert "ACCEPTED" in text


def test_a_refusal_is_exit_code_1(dense: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dense.folder)
    dense.value["units"][0]["index"] = 0
    dense.write()
    code, text = _run(_model(dense), "toy")
    assert code == 1
    assert "REFUSED: layers.0[0]: it is not inactive" in text
    code, text = _run(dense.folder, ".", "--json")
    found = json.loads(text)
    assert code == 1
    assert not found["accepted"]
    assert found["verdicts"] == {"checked": 4, "trusted": 0, "refused": 1}
    assert found["not_checked"][0]["index"] == 0


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("certificate.json", "certificate.json cannot be read"),
        ("products/fp32.onnx", "a certificate speaks of it"),
        ("uncompressed.onnx", "uncompressed.onnx cannot be read"),
    ],
)
def test_what_is_missing_is_told(
    dense: Files, monkeypatch: pytest.MonkeyPatch, lost: str, says: str
) -> None:
    monkeypatch.chdir(dense.folder)
    home = _model(dense)
    (home / "models" / "toy" / lost).unlink()
    code, text = _run(home, "toy")
    assert code == 1
    assert says in text


def test_an_unknown_model_is_told(dense: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dense.folder)
    code, text = _run(_model(dense), "toyy")
    assert code == 1
    assert "did you mean toy?" in text
