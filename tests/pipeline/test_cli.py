import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.closure import ROOT
from pipeline.program import INTERRUPTED, Program, expected
from tests.pipeline.tiny import put, read_shipped, write_params
from tinygrow.errors import SettingError, TinygrowError

COMMANDS = [
    "download",
    "grow",
    "finetune",
    "compress",
    "export",
    "validate",
    "report",
    "predict",
    "benchmark",
    "certify",
    "package",
    "serve",
    "connectivity",
    "clean-state",
    "doctor",
]
SLOW_MODULES = ("torch", "onnx", "onnxruntime", "numpy", "ruamel", "sklearn", "matplotlib", "dvc")


def python(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_help_names_every_command_in_the_order_of_the_pipeline() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    listing = result.output[result.output.index("Commands:") :]
    assert [line.split()[0] for line in listing.splitlines()[1 : len(COMMANDS) + 1]] == COMMANDS
    assert "130 interrupted, 143 terminated" in " ".join(result.output.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_helps_at_length(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "-h"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    assert len(result.output.splitlines()) >= 6


def test_export_says_what_another_checkpoint_needs_and_is_for() -> None:
    told = " ".join(CliRunner().invoke(cli, ["export", "--help"]).output.split())
    assert "(needs `growth.snapshots: true`)" in told
    assert "on the test images as well: for information, never for choosing" in told


@pytest.mark.parametrize(
    "arguments", [[], ["predict"], ["benchmark"], ["package"], ["serve"], ["connectivity"]]
)
def test_help_imports_nothing_slow(arguments: list[str]) -> None:
    done = python(
        "import sys\nfrom pipeline.cli import cli\n"
        f"cli({[*arguments, '--help']}, standalone_mode=False)\n"
        f"print('imported', [m for m in {SLOW_MODULES} if m in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported []"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gro"], "grow"),
        (["grow"], "Missing argument 'MODEL'"),
        (["predict"], "Missing argument 'IMAGE...'"),
        (["predict", "-k", "0", "x.png"], "is not in the range x>=1"),
        (["-C", "nowhere", "doctor"], "does not exist"),
        (["grow", "demo", "--devise", "cpu"], "--device"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert says in result.output


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("models", {"demo2": {}}, "models.demo2.data is missing; add `data:`"),
        ("models.demo.export.opset", 99, "models.demo.export.opset is 99; it must be from 18"),
        ("models.demo.seed", 10**30, "000; it must be from 0 to 4294967295"),
        ("models.demo.finetune.epoch", 3, "finetune.epoch is unknown; did you mean epochs?"),
    ],
)
def test_a_mistake_in_params_stops_growth_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, value: object, says: str
) -> None:
    monkeypatch.chdir(ROOT)  # -C changes the folder of the process; this brings it back
    tree = read_shipped()
    put(tree, place, value)
    write_params(tmp_path, tree)
    result = CliRunner().invoke(cli, ["-C", str(tmp_path), "grow", "demo"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: params.yaml:")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_an_unknown_model_is_told_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(cli, ["grow", "demoo"])
    assert result.exit_code == 1
    assert "there is no model 'demoo' under models; did you mean demo?" in result.stderr


def test_a_folder_without_params_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["download", "digits"])
    assert result.exit_code == 1
    assert "params.yaml does not exist" in result.stderr


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TinygrowError("a\nb"), "a b"),
        (SettingError("x is 1; take 2"), "x is 1; take 2"),
        (OSError(errno.ENOSPC, "No space left on device", "f"), "on device (f); free disk space"),
        (PermissionError(errno.EACCES, "Permission denied", "f"), "(f); check the path and its"),
        (MemoryError(), "out of memory; lower the images' size, base_width (or hidden), batch_"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory; lower the"),
        (RuntimeError("a bug"), None),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), None),
        (ValueError("a bug"), None),
    ],
)
def test_expected_failures_are_one_line_and_bugs_are_none(
    error: Exception, says: str | None
) -> None:
    line = expected(error)
    if says is None:
        assert line is None
    else:
        assert line is not None
        assert says in line
        assert "\n" not in line


def failing(error: BaseException) -> click.Group:
    @click.group(cls=Program)
    @click.option("-v", "--traceback", is_flag=True)
    def group(traceback: bool) -> None: ...

    @group.command()
    def fail() -> None:
        raise error

    return group


def test_the_traceback_is_shown_on_demand() -> None:
    group = failing(TinygrowError("no file x; make it"))
    short = CliRunner().invoke(group, ["fail"])
    assert (short.exit_code, short.stderr) == (1, "Error: no file x; make it\n")
    long = CliRunner().invoke(group, ["-v", "fail"])
    assert long.exit_code == 1
    assert isinstance(long.exception, TinygrowError)


def test_an_interrupt_exits_with_130() -> None:
    result = CliRunner().invoke(failing(KeyboardInterrupt()), ["fail"])
    assert result.exit_code == INTERRUPTED
    assert "Interrupted" in result.stderr


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")],
)
def test_signals_end_a_command_with_a_word_and_its_cleanup(
    number: int, code: int, word: str
) -> None:
    done = python(
        "import os, signal, sys\n"
        # A shell starts background work, these tests among it, with Ctrl-C ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pipeline import cli\n"
        "@cli.cli.command()\n"
        "def wait():\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        for _ in range(10**8): pass\n"
        "    finally:\n"
        "        print('cleaned up')\n"
        "sys.argv = ['tinygrow', 'wait']\n"
        "cli.main()\n"
    )
    assert done.returncode == code
    assert "cleaned up" in done.stdout
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_traceback() -> None:
    done = subprocess.run(
        f"'{sys.executable}' -m pipeline --help | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr


def test_a_python_without_the_packages_is_told_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pipeline", "--help"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "make setup" in done.stderr
    assert "Traceback" not in done.stderr
