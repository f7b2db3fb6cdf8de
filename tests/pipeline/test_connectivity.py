"""`tinygrow connectivity` from the outside: what it prints, writes and refuses."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from benchmarks.connectivity import DagNetwork
from pipeline.cli import cli
from tests.connectivity.test_from_onnx import graph_of, node
from tests.pipeline.tiny import read_shipped, write_params
from tinygrow.connectivity import tables


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["connectivity", *arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, read_shipped())
    return tmp_path


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.lost = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.lost(x)
        return self.used(x)


def dropped(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Dropped()


def plain() -> nn.Module:
    return nn.Linear(4, 4)


def number(input_shape: tuple[int, ...], classes: int) -> int:
    return classes


def failing() -> nn.Module:
    raise KeyError("not\nhere")


def test_a_model_of_the_file(folder: Path) -> None:
    result = run("demo", "--picture", "demo.svg")
    assert result.exit_code == 0, result.output
    assert "21 layers, 256 paths of depth 5 to 21; d 13, m 19.69" in result.output
    assert "Connectivity of demo" in (folder / "demo.svg").read_text()


def test_functions_with_and_without_arguments(folder: Path) -> None:
    for name in ("dropped", "plain"):
        result = run(f"{__name__}:{name}", "--shape", "4", "--json")
        assert result.exit_code == 0, result.output
        (output,) = json.loads(result.output)["outputs"]
        assert output["whole"]["depths"] == {"1": "1"}


def test_strict_fails_on_dead_paths_alone(folder: Path) -> None:
    result = run(f"{__name__}:dropped", "--shape", "4", "--strict")
    assert result.exit_code == 1
    assert "ERROR: lost lies on no path" in result.stdout
    assert result.stderr.startswith(f"Error: {__name__}:dropped has dead paths: lost lies on no")
    assert run(f"{__name__}:dropped", "--shape", "4").exit_code == 0
    assert run(f"{__name__}:plain", "--shape", "4", "--strict").exit_code == 0


def test_an_onnx_file(folder: Path) -> None:
    model = graph_of(node("MatMul", "x w.weight", "a"), node("Add", "a x"))
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    result = run("m.onnx", "--picture", "m.png", "--strict")
    assert result.exit_code == 0, result.output
    assert "1 layer, 2 paths of depth 0 to 1" in result.output
    assert (folder / "m.png").read_bytes().startswith(b"\x89PNG")


def of_code(code: str) -> nn.Module:
    return DagNetwork(code, 4, 3, 8, seed=0)


def chained() -> nn.Module:
    return of_code("2_02_002")


def mixed() -> nn.Module:
    return of_code("2_21_112")


def test_two_networks_of_equal_parameters_are_compared(folder: Path) -> None:
    one, other = f"{__name__}:chained", f"{__name__}:mixed"
    for pair in ((one, other), (other, one)):
        result = run(pair[0], "--shape", "4", "--against", pair[1])
        assert result.exit_code == 0, result.output
        assert f"weak preference for {other}, which has the larger bound" in result.output
    for against, says in ((one, "the bounds are equal"), (f"{__name__}:plain", "equal parameters")):
        assert says in run(one, "--shape", "4", "--against", against).output.splitlines()[-1]


def test_the_cell_space(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "folder", lambda: None)  # other tests read the real ones
    result = run("space", "--repeats", "2")
    assert result.exit_code == 0
    assert "half radius         6,256   40.0 %" in result.output
    assert "SKIPPED: accuracies" in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demos"], "there is no model 'demos'"),
        (["gone.onnx"], "gone.onnx does not exist; name an .onnx file"),
        (["nowhere.at.all:net"], "there is no module nowhere"),
        ([f"{__name__}:absent"], "has no function 'absent'"),
        ([f"{__name__}:number"], "returned a int; it must return a torch.nn.Module"),
        ([f"{__name__}:failing"], "fails when it is called with () (KeyError: 'not\\nhere')"),
        ([f"{__name__}:plain", "--shape", "5"], "does not run on (2, 5)"),
        (["demo", "--shape", "3x4"], "the shape is '3x4'; it must be numbers such as 3,32,32"),
        (["demo", "--shape", "4"], "demo reads channels, height, width"),
        (["demo", "--picture", "demo.jpg"], "its name must end in .svg or .png"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(
    arguments: list[str], says: str, folder: Path
) -> None:
    if "--picture" not in arguments:
        arguments = [*arguments, "--picture", "out.svg"]
    result = run(*arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and says in line
    assert [path.name for path in folder.iterdir()] == ["params.yaml"]
