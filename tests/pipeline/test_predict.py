import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline.cli import cli
from pipeline.closure import ROOT
from pipeline.predict import lines
from pipeline.progress import TerminalObserver
from tinygrow.deploy.contract import Contract


def write_model(path: Path, *, swapped: bool = False) -> None:
    """Write a model of 2x2 grey images whose logits are the sums of the upper and lower row."""
    rows = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32) / 100
    rows = rows[::-1] if swapped else rows
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("MatMul", ["flat", "rows"], ["logits"]),
        ],
        "rows",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 1, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(rows, "rows")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    contract = Contract(
        model="m", classes=("upper", "lower"), shape=(1, 2, 2), mean=(0.0,), std=(1.0,)
    )
    helper.set_model_props(
        model,
        {"model": "m", "classes": json.dumps(contract.classes), "input": contract.input_json()},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline folder with one model and two images."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "models" / "m" / "products" / "fp32.onnx")
    Image.fromarray(np.array([[200, 200], [0, 0]], np.uint8)).save(tmp_path / "up.png")
    Image.fromarray(np.array([[0, 0], [200, 200]], np.uint8)).save(tmp_path / "down.png")
    return tmp_path


def predict(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["predict", "--provider", "cpu", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_images_get_their_classes_one_line_each(folder: Path) -> None:
    code, out, _ = predict("up.png", "down.png")
    assert code == 0
    assert out == "up.png: upper 98.2 %, lower 1.8 %\ndown.png: lower 98.2 %, upper 1.8 %\n"


def test_json_is_one_object_a_line(folder: Path) -> None:
    code, out, _ = predict("--json", "-k", "1", "-m", "m", "down.png")
    assert code == 0
    answer = json.loads(out)
    assert answer["image"] == "down.png"
    assert answer["label"] == "lower"
    assert answer["top"] == [{"label": "lower", "probability": answer["probability"]}]
    assert answer["probability"] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-5)


def test_a_model_is_taken_by_its_file(folder: Path) -> None:
    (folder / "models" / "m" / "products" / "fp32.onnx").rename(folder / "other.onnx")
    assert predict("-m", "other.onnx", "up.png")[0] == 0
    code, _, err = predict("up.png")
    assert code == 1
    assert "there is no models/NAME/products/fp32.onnx" in err


def test_one_of_several_models_has_to_be_named(folder: Path) -> None:
    write_model(folder / "models" / "second" / "products" / "fp32.onnx")
    code, _, err = predict("up.png")
    assert (code, err) == (1, "Error: --model is not given; it must be one of m, second\n")
    code, _, err = predict("-m", "second2", "up.png")
    assert code == 1
    assert "did you mean second?" in err


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_a_bad_image_is_one_line(folder: Path, content: bytes | None) -> None:
    if content is not None:
        (folder / "bad.png").write_bytes(content)
    alone = predict("up.png", "down.png")[1]
    code, out, err = predict("up.png", "bad.png", "down.png")
    assert (code, out) == (1, alone)
    assert err.startswith("Error: bad.png ")
    assert len(err.splitlines()) == 1


def test_every_bad_image_has_its_line_and_every_good_one_its_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.predict._BATCH", 2)
    code, out, err = predict("gone.png", "up.png", "down.png", "lost.png", "up.png")
    assert code == 1
    assert [line.split(":")[0] for line in out.splitlines()] == ["up.png", "down.png", "up.png"]
    assert [line.split()[1] for line in err.splitlines()] == ["gone.png", "lost.png"]


def test_a_product_is_taken_by_its_precision(folder: Path) -> None:
    write_model(folder / "models" / "m" / "products" / "int8.onnx", swapped=True)
    assert predict("up.png")[1].startswith("up.png: upper")
    assert predict("--precision", "int8", "up.png")[1].startswith("up.png: lower")
    code, out, err = predict("--precision", "fp16", "-m", "m", "up.png")
    assert (code, out) == (1, "")
    assert "products/fp16.onnx does not exist: fp16 of m was not published" in err
    assert err.endswith("validate.json says why, and there is fp32, int8\n")


def test_of_a_folder_all_images_inside_are_taken_by_name(folder: Path) -> None:
    photos = folder / "photos"
    (photos / "inner.png").mkdir(parents=True)
    (photos / ".hidden").mkdir()
    for name in ("b.png", "a.PNG", "inner.png/c.png", ".hidden.png", ".hidden/d.png"):
        (photos / name).write_bytes((folder / "up.png").read_bytes())
    (photos / "notes.txt").write_text("no image")
    (photos / "circle").symlink_to(photos)
    code, out, err = predict("down.png", "photos")
    assert (code, err) == (0, "")
    files = [line.split(":")[0] for line in out.splitlines()]
    assert files == [
        "down.png",
        *(f"photos/{name}" for name in ("a.PNG", "b.png", "inner.png/c.png")),
    ]


def test_a_damaged_image_in_a_folder_is_named_and_the_others_are_answered(folder: Path) -> None:
    (folder / "photos" / "deep").mkdir(parents=True)
    (folder / "photos" / "a.png").write_bytes((folder / "up.png").read_bytes())
    (folder / "photos" / "deep" / "b.png").write_bytes((folder / "up.png").read_bytes()[:40])
    (folder / "photos" / "z.png").write_bytes((folder / "down.png").read_bytes())
    code, out, err = predict("--json", "photos")
    assert code == 1
    assert [json.loads(line)["label"] for line in out.splitlines()] == ["upper", "lower"]
    assert err.startswith("Error: photos/deep/b.png is not an image")
    assert len(err.splitlines()) == 1


def test_progress_is_shown_on_a_terminal_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("pipeline.progress.SECONDS_BETWEEN_LINES", 0.0)
    assert predict("up.png", "down.png")[2] == ""  # the error stream is a file
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    observer = TerminalObserver(terminal, quiet=True)
    told = list(
        lines(
            ["up.png", "down.png"],
            model="m",
            precision="fp32",
            top_k=1,
            provider="cpu",
            as_json=False,
            observer=observer,
        )
    )
    assert len(told) == 2
    assert "predict:" in terminal.getvalue()
    assert "/2 " in terminal.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_file_name_that_is_no_text(folder: Path, form: list[str]) -> None:
    Path("up.png").rename(os.fsdecode(b"\xff.png"))
    code, out, err = predict(*form, ".")
    assert (code, err) == (0, "")
    assert "\ufffd.png" in out


def test_a_folder_without_images_is_one_line(folder: Path) -> None:
    (folder / "empty").mkdir()
    code, out, err = predict("empty", "up.png")
    assert (code, out) == (1, "up.png: upper 98.2 %, lower 1.8 %\n")
    assert err == "Error: empty is a folder without images; name images, or a folder with some\n"


def test_an_image_is_no_model(folder: Path) -> None:
    code, out, err = predict("-m", "down.png", "up.png")
    assert (code, out) == (1, "")
    assert "down.png: it is not an ONNX file; name an .onnx file with --model" in err


def test_torch_is_not_imported(folder: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\nfrom pipeline.cli import cli\n"
            "cli(['predict', '--provider', 'cpu', 'up.png'], standalone_mode=False)\n"
            "print([m for m in ('torch', 'onnx', 'sklearn', 'ruamel') if m in sys.modules])",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
