"""Where tensors live, and how exact float32 products are there."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from tinygrow.distributed import processes
from tinygrow.errors import TinygrowError
from tinygrow.training.free_gpu import take, take_free, visible_gpus


def pick_device(name: str, say: Callable[[str], None] = lambda _: None) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Of several GPUs `auto` takes one that no other run has taken, until this process ends.

    Args:
        name: of the device.
        say: is told of a GPU that has to be shared.

    Raises:
        TinygrowError: the name is unknown, or a GPU is asked for by name that is not there.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        if torch.cuda.device_count() == 1:
            return torch.device("cuda")
        return _current(take_free(visible_gpus(), say).index)
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::([0-9]+))?", name)
    if match is None:
        raise TinygrowError(f"device is {name!r}; it must be auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(match[1] or 0) >= count:
        raise TinygrowError(
            f"device is {name!r}, but PyTorch {torch.__version__} sees {count} CUDA devices here;"
            " take device auto or cpu, or see `tinygrow doctor`"
        )
    if count > 1:
        take(visible_gpus()[int(match[1] or 0)])
    return torch.device(name)


def own_device(name: str, asked: int, say: Callable[[str], None]) -> torch.device:
    """Return the device of this process among those that work together (`tinygrow.distributed`).

    Each has a GPU of its own, or all share the CPU.

    Args:
        name: as for `pick_device`; several processes cannot have one `cuda:N`.
        asked: how many processes the settings ask for; 0: as many as there are GPUs.
        say: is told of other numbers, and of a GPU that is shared.

    Raises:
        TinygrowError: the name is unknown, or there are fewer GPUs than processes.
    """
    group = processes()
    if asked not in (0, group.count):
        say(f"processes is {asked} in the settings; here work {group.count}")
    if group.count == 1:
        return pick_device(name, say)
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        pick_device(name)
        raise TinygrowError(
            f"device is {name!r} with {group.count} processes; take auto or cuda, so that each has"
            " a GPU of its own, or processes 1"
        )
    local = int(os.environ.get("LOCAL_RANK", group.rank))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local >= count:
        raise TinygrowError(
            f"there are {count} GPUs for {group.count} processes; set processes to at most that, or"
            " device to cpu"
        )
    if not take(visible_gpus()[local]):
        say(f"cuda:{local} is taken by another run; sharing it")
    return _current(local)


def _current(index: int) -> torch.device:
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)  # NCCL, and whatever forgets to name a device
    return device


@contextmanager
def full_float32() -> Iterator[None]:
    """Switch TF32 off: it would ruin the small eigenvalues of second-order moments."""
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn
