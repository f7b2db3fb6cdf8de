import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.state import folder as module
from tinygrow.state.folder import ABOUT, LOCK, StateFolder, about, holder, lock


class Lines(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def state(number: int) -> dict[str, object]:
    return {"progress": f"step {number}", "weights": torch.full((3,), float(number))}


def saved(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("*.pt"))


def test_the_newest_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "work"
    with StateFolder(path, {"model": "demo"}) as states:
        assert states.load(Observer()) is None
        for number in range(5):
            states.save(state(number))
    assert len(saved(path)) == 2
    with StateFolder(path, {"model": "demo"}) as states:
        back = states.load(Observer())
    assert back is not None
    assert back["progress"] == "step 4"
    assert torch.equal(back["weights"], torch.full((3,), 4.0))
    assert about(path)["model"] == "demo"
    assert about(path)["progress"] == "step 4"


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"garbage" * 100, None])
def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path, damage: bytes | None) -> None:
    with StateFolder(tmp_path / "work", {}) as states:
        states.save(state(1))
        states.save(state(2))
        newest = tmp_path / "work" / saved(tmp_path / "work")[-1]
        content = newest.read_bytes()
        newest.write_bytes(content[: len(content) // 2] if damage is None else damage)
        observer = Lines()
        back = states.load(observer)
        assert back is not None and back["progress"] == "step 1"
        assert len(observer.lines) == 1 and str(newest) in observer.lines[0]
        states.save(state(3))  # goes on behind it
        again = states.load(Observer())
        assert again is not None and again["progress"] == "step 3"


def test_states_of_which_none_can_be_read_are_an_error_and_stay(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "work", {}) as states:
        states.save(state(1))
        (tmp_path / "work" / "000001.pt").write_bytes(b"garbage")
        with pytest.raises(TinygrowError, match=r"000001.pt: .*; nothing is lost yet: .*clean"):
            states.load(Observer())
    assert saved(tmp_path / "work") == ["000001.pt"]


@pytest.mark.parametrize(
    "error",
    [OSError(5, "Input/output error"), MemoryError(), RuntimeError("DefaultCPUAllocator: no")],
    ids=["disk", "memory", "allocator"],
)
def test_a_machine_that_cannot_read_now_costs_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with StateFolder(tmp_path / "work", {}) as states:
        states.save(state(1))
        states.save(state(2))
        with monkeypatch.context() as patch, pytest.raises(TinygrowError, match="nothing is lost"):
            patch.setattr(module.torch, "load", fail)
            states.load(Observer())
        back = states.load(Observer())
    assert back is not None and back["progress"] == "step 2"


def test_what_a_killed_process_left_of_a_save_is_taken_away(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "work", {}) as states:
        states.save(state(1))
        (tmp_path / "work" / ".000002.pt.x.part").write_bytes(b"half")
    with StateFolder(tmp_path / "work", {}):
        assert not list((tmp_path / "work").glob(".*.part"))
    assert saved(tmp_path / "work") == ["000001.pt"]


def test_a_file_system_without_locks_is_not_called_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", flock)
    with pytest.raises(TinygrowError, match=r"cannot lock .*: No locks available; move"):
        lock(tmp_path / "work")


def test_who_holds_a_folder_is_seen_without_touching_it(tmp_path: Path) -> None:
    assert holder(tmp_path / "none") == ""
    assert not (tmp_path / "none").exists()
    with StateFolder(tmp_path / "work", {}) as states:
        states.save(state(1))
        assert holder(tmp_path / "work") == str(os.getpid())
    before = (tmp_path / "work" / LOCK).read_text()
    assert holder(tmp_path / "work") == ""
    assert (tmp_path / "work" / LOCK).read_text() == before


def test_nothing_in_a_state_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    with StateFolder(tmp_path / "work", {}) as states:
        torch.save({"progress": "", "trap": Trap()}, tmp_path / "work" / "000001.pt")
        with pytest.raises(TinygrowError, match="nothing is lost"):
            states.load(Observer())
    assert not (tmp_path / "trapped").exists()


def test_a_folder_without_a_state_is_taken_away(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "work", {}):
        assert (tmp_path / "work" / ABOUT).is_file()
    assert not (tmp_path / "work").exists()
    with StateFolder(tmp_path / "work", {}) as states:
        states.save(state(1))
        states.remove()
    assert not (tmp_path / "work").exists()


def test_a_second_run_is_refused_and_told_who_holds_the_state(tmp_path: Path) -> None:
    with (
        StateFolder(tmp_path / "work", {}) as states,
        pytest.raises(TinygrowError, match=f"process {os.getpid()} works on .*work already"),
        StateFolder(tmp_path / "work", {}),
    ):
        pass
    with StateFolder(tmp_path / "work", {}) as states:  # and the refusal has done no harm
        states.save(state(1))


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from tinygrow.state.folder import lock;"
        "held = lock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "work")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TinygrowError, match=f"process {process.pid} works"):
            lock(tmp_path / "work")
        process.send_signal(signal.SIGKILL)
    lock(tmp_path / "work").close()


def test_a_lock_on_a_folder_that_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real, removals = tmp_path / "work", module.fcntl.flock, []

    def flock(file: object, operation: int) -> None:
        real(file, operation)
        if not removals:  # its last owner removes it between our opening and locking
            removals.append((folder / LOCK).unlink())

    monkeypatch.setattr(module.fcntl, "flock", flock)
    with lock(folder) as file:
        assert os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat())


def _save_much(path: Path) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    with StateFolder(path, {}) as states:
        states.save(state(1))
        try:
            states.save(state(2) | {"much": torch.zeros(100_000)})
        except TinygrowError as error:
            (path / "error.txt").write_text(str(error))


def test_a_full_disk_is_one_error_and_the_state_before_stays(tmp_path: Path) -> None:
    path = tmp_path / "work"
    process = multiprocessing.get_context("spawn").Process(target=_save_much, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    message = (path / "error.txt").read_text()
    assert re.match(r"cannot write .*000002.pt: .*; free disk space", message)
    assert saved(path) == ["000001.pt"]
    assert not list(path.glob(".*.part"))
    with StateFolder(path, {}) as states:
        back = states.load(Observer())
    assert back is not None and back["progress"] == "step 1"


@pytest.mark.parametrize("content", [None, "", "[1]", "{"])
def test_what_cannot_be_read_is_about_nothing(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / ABOUT).write_text(content)
    assert about(tmp_path) == {}
