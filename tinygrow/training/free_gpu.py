"""Which of several GPUs a process takes, so that runs side by side do not share one.

A lock on a file in the system's temporary folder, one for each GPU, says that it is taken. The
system lets go of it however the process ends. Who names a GPU outright gets it in any case.
"""

import fcntl
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_held: list[int] = []  # open files, for the life of the process


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as this process sees it.

    Attributes:
        index: of `cuda:N`, which CUDA_VISIBLE_DEVICES shifts.
        identity: the same for all processes of the machine.
    """

    index: int
    identity: str


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that PyTorch sees here."""
    import torch  # what waits for a lock need not load it

    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gpus.append(Gpu(index, str(getattr(properties, "uuid", index))))
    return gpus


def take_free(gpus: Sequence[Gpu], say: Callable[[str], None], folder: Path | None = None) -> Gpu:
    """Take a GPU that no other process has taken, until this process ends.

    Where there is none, it is the one that was taken longest ago, which `say` is told.

    Args:
        gpus: at least one.
        say: is told of a GPU that is shared.
        folder: of the locks; None: the system's temporary folder.
    """
    folder = folder or Path(tempfile.gettempdir())
    for gpu in gpus:
        if _lock(_file(folder, gpu)):
            return gpu
    oldest = min(gpus, key=lambda gpu: _taken_at(_file(folder, gpu)))
    with suppress(OSError):
        os.utime(_file(folder, oldest))  # so that the next one takes another
    say(
        f"all {len(gpus)} GPUs are taken by other runs: sharing cuda:{oldest.index} with one of"
        " them; lower the number of jobs (dvc queue start -j) if memory or time runs short"
    )
    return oldest


def take(gpu: Gpu, folder: Path | None = None) -> bool:
    """Take this GPU if it is free, so that others leave it alone; say whether it was."""
    return _lock(_file(folder or Path(tempfile.gettempdir()), gpu))


def _file(folder: Path, gpu: Gpu) -> Path:
    return folder / f"tinygrow-gpu-{gpu.identity}.lock"


def _lock(path: Path) -> bool:
    try:
        # Another user's file can be locked, too, though not written.
        if not path.exists():
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True  # no locks here: then every GPU counts as free
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    except OSError:
        os.close(file)
        return True
    with suppress(OSError):
        os.utime(path)
    _held.append(file)
    return True


def _taken_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
