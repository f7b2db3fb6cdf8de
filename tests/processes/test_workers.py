"""How processes are started and ended: with programs that take no time to load."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import params, workers
from pipeline.closure import ROOT
from tests.pipeline.tiny import put, read_demo, write_params
from tinygrow import distributed
from tinygrow.errors import TinygrowError

BEGIN = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
"""


def run(program: str, count: int = 2) -> int:
    return workers.run([sys.executable, "-c", BEGIN + program], count)


def test_each_is_told_its_place_as_by_torchrun(tmp_path: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    program = f"""
from pathlib import Path
told = " ".join(os.environ[name] for name in {names!r})
(Path({str(tmp_path)!r}) / f"{{rank}}").write_text(told + " " + os.environ["PYTHONPATH"])
"""
    assert run(program, 3) == 0
    for rank in range(3):
        *told, path = (tmp_path / str(rank)).read_text().split()
        assert told == [str(rank), str(rank), "3", "3", "127.0.0.1"]
        assert path.split(os.pathsep)[0] == str(ROOT)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_is_the_status_of_all_and_ends_the_others(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "SECONDS_TO_FAIL", 0.1)
    assert run(f"sys.exit(3) if rank == {rank} else time.sleep(600)") == 3


def test_a_killed_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SECONDS_TO_FAIL", 0.1)
    with pytest.raises(TinygrowError, match=r"process 1 of 2 was killed by SIGKILL.*lower proc"):
        run("os.kill(os.getpid(), signal.SIGKILL) if rank else time.sleep(600)")


WAITING = """
from pathlib import Path
def end(*_):
    sys.exit({end})
if rank == 0:
    signal.signal(signal.SIGTERM, end)
    Path({ready!r}).touch()
time.sleep(600)
"""


def ask_when(ready: Path) -> threading.Thread:
    """Send this process SIGTERM as soon as there is that file."""

    def ask() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_request_to_stop_reaches_the_first_whose_status_counts(tmp_path: Path) -> None:
    thread = ask_when(tmp_path / "ready")
    assert run(WAITING.format(ready=str(tmp_path / "ready"), end=143)) == 143
    thread.join()


def test_who_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SECONDS_TO_STOP", 0.2)
    thread = ask_when(tmp_path / "ready")
    with pytest.raises(TinygrowError, match=r"did not end within 0 s of being asked to"):
        run(WAITING.format(ready=str(tmp_path / "ready"), end="time.sleep(600)"))
    thread.join()


class TestLaunched:
    @pytest.fixture(autouse=True)
    def _alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(workers, "run", lambda command, count, _: (command[1:], count))
        monkeypatch.setattr(workers, "_visible", lambda device: 4 if device == "auto" else 1)

    def launched(self, asked: int, device: str | None = None) -> object:
        tree = read_demo()
        put(tree, "models.demo.processes", asked)
        write_params(Path(), tree)
        assert params.read().value("demo", "processes") == asked
        return workers.launched("demo", device, ["grow", "demo"])

    def test_as_many_as_the_settings_ask_for(self) -> None:
        assert self.launched(1) is None
        assert self.launched(3) == (["-m", "pipeline", "grow", "demo"], 3)

    def test_nought_is_one_for_each_gpu(self) -> None:
        assert self.launched(0) == (["-m", "pipeline", "grow", "demo"], 4)
        assert self.launched(0, device="cpu") is None

    def test_one_of_several_launches_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert self.launched(3) is None


@pytest.mark.parametrize(("rank", "size"), [("x", "2"), ("2", "2"), ("", "2"), ("0", "")])
def test_an_environment_that_torchrun_did_not_make_is_refused(
    monkeypatch: pytest.MonkeyPatch, rank: str, size: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(TinygrowError, match=r"start the processes by torchrun, or unset both"):
        distributed.announced()
