"""The server as a process: its address, its warning, its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.cli import cli
from pipeline.closure import ROOT
from tests.deploy.conftest import contract_of, make_model
from tests.serve.files import png

# Prediction takes a moment, so that the server can be stopped in its midst.
SCRIPT = """
import atexit, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipeline.cli import main
from tinygrow.deploy.predictor import Predictor
def slow(*arguments, real=Predictor.predict, **options):
    time.sleep(0.5)
    return real(*arguments, **options)
Predictor.predict = slow
heavy = {"torch", "onnx", "dvc", "matplotlib"}
atexit.register(lambda: print("imported", sorted(heavy & set(sys.modules))))
main()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(make_model(contract_of((1, 8, 8))).SerializeToString())
    return path


@contextmanager
def started(model: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server on a free port; yield it and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "serve", "-m", model, "--provider", "cpu", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " serves " in line, process.communicate()
        yield process, line.split()[0]
    finally:
        process.kill()
        process.communicate()


def fetch(url: str, data: bytes | None = None) -> str:
    with urllib.request.urlopen(url, data, timeout=60) as response:
        return str(response.read().decode())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_after_the_answer_under_way(
    model: Path, number: signal.Signals, status: int
) -> None:
    with started(model) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        answers: list[str] = []
        asking = threading.Thread(
            target=lambda: answers.append(fetch(f"{address}predict", png(Image.new("L", (8, 8)))))
        )
        asking.start()
        while "in_flight 1\n" not in fetch(f"{address}metrics"):
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        asking.join(60)
        assert json.loads(answers[0])["label"] == "dark"
        assert process.returncode == status
        assert out == "Stopped; 1 predictions, 0 refused.\nimported []\n"
        assert err == ""


def serve(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["serve", "--provider", "cpu", *map(str, arguments)])
    return result.exit_code, result.stderr


def test_a_port_that_is_taken(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, err = serve("--model", model, "--port", port)
    assert code == 1
    assert err.startswith(f"Error: cannot serve on port {port} of 127.0.0.1 (")
    assert "--port" in err
    assert len(err.splitlines()) == 1


def test_an_address_that_others_reach_is_warned_of(model: Path) -> None:
    # An address for documentation, which no machine has: the warning comes, the server does not.
    code, err = serve(model, "--host", "192.0.2.1", "--port", 0)
    warning, failure = err.splitlines()
    assert code == 1
    assert warning.startswith("Warning: 192.0.2.1 may be reached from other machines, without pass")
    assert failure.startswith("Error: cannot serve on port 0 of 192.0.2.1")


def test_wrong_usage(model: Path) -> None:
    assert serve(model, "--model", model)[0] == 2
    code, err = serve("nothing")
    assert code == 1
    assert "neither a file nor a model" in err


def test_without_its_library(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("aiohttp", "tinygrow.serve"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    code, err = serve("-m", model)
    assert code == 1
    assert "aiohttp is not installed" in err
    assert "pip install 'tinygrow[serve]'" in err
