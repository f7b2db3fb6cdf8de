import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard
from PIL import Image

from pipeline import package, paths
from pipeline.cli import cli
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer


def pack(output: Path | None = None, **options: object) -> Path:
    return package.run("toy", output=output, observer=Observer(), **options)  # type: ignore[arg-type]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", folder.resolve() / "predict.py", *arguments],
        cwd=folder.parent,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )


def test_the_folder_and_the_archive_hold_the_same_and_checksums_of_it(workspace: Path) -> None:
    folder = pack(triton=True, docker=True)
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    samples = {"samples/0-zero.png", "samples/1-_one_more.png", "samples/2-two_2.png"}
    assert names == samples | {
        ".dockerignore",
        "Dockerfile",
        "README.md",
        "SHA256SUMS",
        "certificate.json",
        "fp32.json",
        "fp32.onnx",
        "int8.json",
        "int8.onnx",
        "labels.txt",
        "predict.py",
        "requirements.txt",
        "samples/expected.json",
        *(
            f"triton/toy_{precision}/{file}"
            for precision in ("fp32", "int8")
            for file in ("config.pbtxt", "labels.txt", "1/model.onnx")
        ),
    }
    told = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert told.keys() == names - {"SHA256SUMS"}
    for name, checksum in told.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum
    with tarfile.open(workspace / "packages" / "toy.tar.gz") as archive:
        entries = archive.getmembers()
        assert {entry.name for entry in entries} == {f"toy/{name}" for name in names}
        assert {(e.mtime, e.uid, e.gid, e.uname, e.gname) for e in entries} == {(0, 0, 0, "", "")}
        content = archive.extractfile("toy/predict.py")
        assert content is not None
        assert content.read() == (folder / "predict.py").read_bytes()


def test_the_same_model_gives_the_same_bytes_anywhere(workspace: Path, tmp_path: Path) -> None:
    first = pack(tmp_path / "here" / "toy", triton=True)
    for file in (workspace / "models").rglob("*.onnx"):
        os.utime(file, (1, 1))
    second = pack(tmp_path / "there" / "toy", triton=True)
    assert (first.parent / "toy.tar.gz").read_bytes() == (second.parent / "toy.tar.gz").read_bytes()
    for file in first.rglob("*"):
        if file.is_file():
            assert str(tmp_path).encode() not in file.read_bytes(), file


def test_the_samples_answer_as_expected_without_this_package(workspace: Path) -> None:
    folder = Path(shutil.move(pack(), workspace / "elsewhere"))
    for arguments in ([], ["--model", str(folder / "int8.onnx")]):
        done = python(folder, *arguments)
        assert (done.returncode, done.stderr) == (0, "0 of 3 samples not as expected\n")
        assert done.stdout.startswith("0-zero.png: zero ")
        assert len(done.stdout.splitlines()) == 3
    done = python(folder, str(folder / "samples" / "2-two_2.png"))
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["2-two_2.png:", "two/2"])
    assert done.stderr == ""


def test_the_script_tells_what_it_cannot_read_in_one_line(workspace: Path) -> None:
    folder = pack().resolve()
    sample = folder / "samples" / "0-zero.png"
    (folder / "cut.png").write_bytes(sample.read_bytes()[:60])
    (folder / "text.png").write_text("no image")
    # Pillow starts Ghostscript for this kind; no more than in training is read.
    Image.new("L", (8, 8)).save(folder / "program.eps")
    for name in ("gone.png", "cut.png", "text.png", "program.eps"):
        done = python(folder, str(sample), str(folder / name))
        assert (done.returncode, len(done.stdout.splitlines())) == (1, 1)
        assert done.stderr.startswith(f"Error: {folder / name} gets no answer (")
        assert len(done.stderr.splitlines()) == 1
    done = python(folder, "--model", "gone.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("error: gone.onnx does not exist\n")


@pytest.mark.parametrize(("key", "value"), [("label", "zero"), ("probability", 0.1)])
def test_a_sample_that_answers_otherwise_is_an_error(
    workspace: Path, key: str, value: object
) -> None:
    folder = pack()
    expected = json.loads((folder / "samples" / "expected.json").read_text())
    expected["fp32"]["2-two_2.png"][key] = value
    (folder / "samples" / "expected.json").write_text(json.dumps(expected))
    done = python(folder)
    assert (done.returncode, done.stderr) == (1, "1 of 3 samples not as expected\n")


def test_the_card_is_one_for_hugging_face_and_tells_what_was_measured(workspace: Path) -> None:
    card = ModelCard((pack(licence="mit") / "README.md").read_text())
    front = card.data.to_dict()
    assert front["license"] == "mit"
    assert front["datasets"] == ["tiles"]
    assert front["pipeline_tag"] == "image-classification"
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results == {"Accuracy, fp32": 0.9166, "Accuracy, int8": 0.912}
    text = " ".join(card.text.split())
    assert "| `int8.onnx` | 8-bit integers inside, float32 logits | 91.20 % | 99.99 % |" in text
    assert "`fp16` was refused and is not here: agreement: too low." in text
    assert "`zero`, `<one> & more`, `two/2`" in text
    assert "of the method `tiny`, seed 3" in text
    assert "| ONNX Runtime | fp32 | cpu | 0.500 | 2,000 |" in text  # the gate's measurement
    assert "license" not in ModelCard((pack() / "README.md").read_text()).data.to_dict()


@pytest.mark.parametrize("stale", [False, True])
def test_the_card_tells_the_benchmark_of_these_files_alone(workspace: Path, stale: bool) -> None:
    told = json.loads((workspace / "models/toy/products/fp32.json").read_text())
    cell = {"engine": "onnxruntime", "variant": "fp32", "device": "cpu", "batch": 8, "runs": 200}
    document = {
        "checksums": {"fp32": "0" * 64 if stale else told["sha256"]},
        "machine": {"processor": "a quick one"},
        "cells": [cell | {"p50_ms": 0.25, "images_per_second": 32000.0}],
    }
    paths.benchmark("toy").parent.mkdir(parents=True)
    paths.benchmark("toy").write_text(json.dumps(document))
    text = (pack() / "README.md").read_text()
    assert ("a quick one" in text) == (not stale)
    assert ("| ONNX Runtime | fp32 | cpu | 0.250 | 32,000 |" in text) == (not stale)


def test_a_folder_that_is_no_package_stays(workspace: Path) -> None:
    mine = workspace / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(TinygrowError, match="mine is there and no package"):
        pack(mine)
    assert (mine / "thesis.txt").read_text() == "years of work"
    folder = pack()
    (folder / "old.txt").write_text("of an older package")
    assert not (pack() / "old.txt").exists()


def test_the_command(workspace: Path) -> None:
    result = CliRunner().invoke(cli, ["package", "toy", "--docker", "--output", "out"])
    assert result.exit_code == 0, result.output
    assert "out, out.tar.gz: fp32, int8" in result.stderr
    docker = (workspace / "out" / "Dockerfile").read_text()
    base = next(line for line in docker.splitlines() if line.startswith("FROM"))
    assert base.split()[1].startswith("python:3.")
    assert "/" not in base  # a name of a host would bring one
    pinned = (workspace / "out" / "requirements.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in pinned] == ["numpy", "onnxruntime", "pillow"]


def test_nothing_published_is_one_line(workspace: Path) -> None:
    shutil.rmtree(workspace / "models" / "toy" / "products")
    result = CliRunner().invoke(cli, ["package", "toy"])
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error: models/toy/products has no product that passed the gate"
    )
    assert not (workspace / "packages").exists()


@pytest.mark.slow
def test_in_a_clean_environment(workspace: Path, tmp_path: Path) -> None:
    pack()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "clean"], check=True)
    scripts = "Scripts" if os.name == "nt" else "bin"
    inside = tmp_path / "clean" / scripts / "python"
    with tarfile.open(workspace / "packages" / "toy.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    install = [inside, "-m", "pip", "install", "--quiet", "-r", tmp_path / "toy/requirements.txt"]
    subprocess.run(install, check=True)
    for precision in ("fp32", "int8"):
        done = subprocess.run(
            [
                inside,
                "-I",
                tmp_path / "toy/predict.py",
                "--model",
                tmp_path / f"toy/{precision}.onnx",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "0 of 3 samples not as expected\n")
    listed = subprocess.run(
        [inside, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True
    )
    assert "torch" not in {entry["name"] for entry in json.loads(listed.stdout)}


def test_the_certificate_travels_and_the_card_says_what_it_is_of(workspace: Path) -> None:
    said = {"fp32": "certified: the same function", "int8": "derived from the fp32 product"}
    for precision, words in said.items():
        path = workspace / "models" / "toy" / "products" / f"{precision}.json"
        told = json.loads(path.read_text()) | {"compression": {"said": words, "removed": 3}}
        path.write_text(json.dumps(told))
    for name in ("certificate.json", "uncompressed.onnx"):
        (workspace / "models" / "toy" / name).write_bytes(b"content")
    folder = pack()
    card = (folder / "README.md").read_text()
    assert "Compression removed 3 units.\n" in card
    assert "`fp32.onnx` is certified: the same function.\n" in card
    assert "`int8.onnx` is derived from the fp32 product.\n" in card
    assert (folder / "certificate.json").read_bytes() == b"content"
    assert (folder / "uncompressed.onnx").read_bytes() == b"content"
