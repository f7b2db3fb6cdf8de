import csv
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from pipeline import package, paths
from pipeline.cli import cli
from tinygrow.observer import Observer


def test_the_command_times_products_beside_pytorch(workspace: Path) -> None:
    arguments = ["benchmark", "toy", "--batch", "2", "-b", "1", "--runs", "5", "--threads", "1"]
    result = CliRunner().invoke(cli, [*arguments, "--no-compile", "--provider", "cpu"])
    assert result.exit_code == 0, result.output
    assert "threads 1" in result.stdout
    assert "the network as trained" in result.stdout
    document = json.loads(paths.benchmark("toy").read_text())
    cells = [(c["engine"], c["variant"], c["batch"], c["runs"]) for c in document["cells"]]
    assert cells == [
        (*name, batch, 5)
        for batch in (1, 2)
        for name in (
            ("onnxruntime", "fp32"),
            ("onnxruntime", "int8"),
            ("pytorch", "eager"),
            ("pytorch", "eager, channels-last"),
        )
    ]
    sidecar = json.loads(Path("models/toy/products/int8.json").read_text())
    assert document["checksums"]["int8"] == sidecar["sha256"]
    with (paths.benchmark_folder("toy") / "benchmark.csv").open() as file:
        assert len(list(csv.reader(file))) == 9
    assert (paths.benchmark_folder("toy") / "benchmark.svg").is_file()


def test_the_gpu_is_named(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake of one: figures without the name of the device could be of any."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Made-up 9000")
    arguments = ["benchmark", "toy", "-b", "1", "--runs", "5", "--no-pytorch", "--provider", "cpu"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(paths.benchmark("toy").read_text())["machine"]["gpu"]
    assert told.startswith("Made-up 9000 (CUDA ")
    assert f"gpu {told}" in result.stdout
    package.run("toy", observer=Observer())
    assert told in Path("packages/toy/README.md").read_text()


def test_files_beside_its_output_stay(workspace: Path) -> None:
    Path("notes.txt").write_text("mine")
    arguments = ["benchmark", "toy", "-b", "1", "--runs", "5", "--no-pytorch", "--output", "."]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert Path("notes.txt").read_text() == "mine"
    assert Path("benchmark.json").is_file()


def test_a_provider_that_does_not_run_is_told(workspace: Path) -> None:
    arguments = ["benchmark", "toy", "-b", "1", "--runs", "5", "--no-pytorch"]
    result = CliRunner().invoke(cli, [*arguments, "--provider", "tensorrt", "--provider", "cpu"])
    assert result.exit_code == 0, result.output
    assert "NOT MEASURED: onnxruntime fp32 on tensorrt: provider 'tensorrt'" in result.stdout


def test_a_batch_beyond_any_use_is_wrong_usage(workspace: Path) -> None:
    result = CliRunner().invoke(cli, ["benchmark", "toy", "-b", "100000000"])
    assert result.exit_code == 2
    assert "100000000 is not in the range 1<=x<=65536" in result.stderr


def test_nothing_left_to_measure_is_one_line(workspace: Path) -> None:
    arguments = ["benchmark", "toy", "--no-pytorch", "--provider", "tensorrt"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: nothing can be measured: onnxruntime fp32 on tensorrt")
    assert not paths.benchmark_folder("toy").exists()
