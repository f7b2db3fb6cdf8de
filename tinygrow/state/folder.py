"""A folder of saved states, locked while a process works on it; the newest two are kept."""

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from pickle import UnpicklingError
from types import TracebackType
from typing import IO, Any, Self

import torch

from tinygrow.errors import TinygrowError
from tinygrow.files import atomic_path, write_json
from tinygrow.observer import Observer

KEPT = 2
ABOUT = "about.json"
LOCK = "lock"
_SUFFIX = ".pt"


class StateFolder:
    """Saved states of one piece of work, as a context manager that holds its lock.

    The system lets go of the lock however the process ends.

    Args:
        path: of the folder; made if missing.
        about: plain data for JSON that says what the states belong to.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        self._about = about
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        """Lock the folder.

        Raises:
            TinygrowError: another process works on it, or the disk refuses.
        """
        self._lock = lock(self.path)
        for file in self.path.glob(".*.part"):  # a killed process left it
            file.unlink(missing_ok=True)
        if not (self.path / ABOUT).is_file():
            write_json(self.path / ABOUT, self._about)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unlock the folder; take it away if it holds nothing that work could go on from."""
        if not self._numbers():
            self.remove()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def save(self, state: dict[str, Any]) -> None:
        """Write a state beside the newest one and drop older ones.

        Args:
            state: tensors and plain values; `progress` is a line for people.

        Raises:
            TinygrowError: the disk refuses; the states that were there are untouched.
        """
        numbers = self._numbers()
        with atomic_path(self._file(numbers[-1] + 1 if numbers else 1)) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # this is how torch calls a full disk
                raise OSError(str(error).splitlines()[0]) from error
        write_json(
            self.path / ABOUT,
            self._about | {"progress": state["progress"], "saved_at": round(time.time())},
        )
        for number in self._numbers()[:-KEPT]:
            self._file(number).unlink(missing_ok=True)

    def load(self, observer: Observer) -> dict[str, Any] | None:
        """Return the newest state that can be read, or None; nothing in it is executed.

        Raises:
            TinygrowError: there are states, but none can be read. None of them is deleted.
        """
        problem = ""
        for number in reversed(self._numbers()):
            file = self._file(number)
            try:
                state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
                return state
            except (OSError, MemoryError, RuntimeError, EOFError, ValueError, UnpicklingError) as e:
                problem = f"{file}: {next(iter(str(e).splitlines()), type(e).__name__)}"
                if isinstance(e, OSError | MemoryError) or "DefaultCPUAllocator" in str(e):
                    break  # of the machine, not of the file
                observer.say(f"cannot read {problem}; trying the state before")
        if problem:
            raise TinygrowError(
                f"cannot read {problem}; nothing is lost yet: mend it and run this again, or begin"
                " anew after `python -m pipeline clean-state --remove --all`"
            )
        return None

    def remove(self) -> None:
        """Delete the folder."""
        remove(self.path)

    def _numbers(self) -> list[int]:
        if not self.path.is_dir():
            return []
        names = (file.stem for file in self.path.glob(f"*{_SUFFIX}"))
        return sorted(int(name) for name in names if name.isdecimal())

    def _file(self, number: int) -> Path:
        return self.path / f"{number:06d}{_SUFFIX}"


def lock(folder: Path) -> IO[str]:
    """Return an open file that holds the lock of `folder`, which is made if missing.

    Raises:
        TinygrowError: another process holds it, or the disk refuses.
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("a+", encoding="utf-8")
        except FileNotFoundError:
            continue  # its owner has just removed the folder
        except OSError as error:
            raise TinygrowError(
                f"cannot write {folder}: {error.strerror}; free disk space or fix its permissions"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another"
            file.close()
            raise TinygrowError(
                f"process {holder} works on {folder} already; wait for it, or stop it (its state"
                " is saved) and run this again"
            ) from error
        except OSError as error:
            file.close()
            raise TinygrowError(
                f"cannot lock {folder / LOCK}: {error.strerror}; move the pipeline to a file system"
                " that knows locks (flock)"
            ) from error
        # Its last owner may have removed the folder between opening and locking.
        if _same(file, folder / LOCK):
            file.truncate(0)
            file.write(f"{os.getpid()}")
            file.flush()
            return file
        file.close()


def holder(folder: Path) -> str:
    """Return the number of the process that holds the lock, or nothing; nothing is changed."""
    try:
        with (folder / LOCK).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another"
    except OSError:
        return ""
    return ""


def has_state(folder: Path) -> bool:
    """Say whether there is something to go on from."""
    return any(folder.glob(f"*{_SUFFIX}"))


def remove(folder: Path) -> None:
    """Delete a folder of states, whose lock the caller holds."""
    for file in folder.glob(f"*{_SUFFIX}"):  # first, so that a state never lacks what is beside it
        file.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def about(folder: Path) -> dict[str, Any]:
    """Return what a folder of states belongs to; empty where that cannot be read."""
    try:
        value = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _same(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
