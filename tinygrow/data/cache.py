"""Where downloads are kept, shared by all pipeline folders of a user, outside of DVC's outputs."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer

VARIABLE = "TINYGROW_CACHE"


def cache_folder() -> Path:
    """Return `$TINYGROW_CACHE`, else `$XDG_CACHE_HOME/tinygrow`, else `~/.cache/tinygrow`.

    Raises:
        TinygrowError: neither is set and the user has no home.
    """
    if own := os.environ.get(VARIABLE):
        return Path(own).absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():  # the XDG specification has others ignored
        return shared / "tinygrow"
    try:
        return Path.home() / ".cache" / "tinygrow"
    except RuntimeError as error:
        raise TinygrowError(
            f"there is no home folder to keep downloads in; set {VARIABLE} to a folder"
        ) from error


@contextmanager
def locked(path: Path, observer: Observer) -> Iterator[None]:
    """Let one process at a time work on `path`; others wait and say so.

    The lock is a file beside it, which stays: to remove it would let two processes each hold a lock
    of its own. The system gives the lock back however its process ends.

    Args:
        path: a file that need not exist; missing parent folders are made.
        observer: is told of waiting.

    Raises:
        TinygrowError: the folder cannot be written, or its file system knows no locks.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        raise cache_error(lock, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            observer.say(f"another process is making {path}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise cache_error(lock, error) from error
        yield


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        # Where a system forbids MD5 as protection, it still allows it as a checksum.
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def cache_error(path: Path, error: OSError, kept: str = "") -> TinygrowError:
    """Return the error for a file of the cache that the system refuses to write or read."""
    return TinygrowError(
        f"cannot write {path}: {error.strerror or error}{kept}; free disk space, mend the"
        f" permissions, or set {VARIABLE} to another folder"
    )
