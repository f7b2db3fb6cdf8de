"""Where tensors live, and how exact float32 products are there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tinygrow.errors import TinygrowError


def pick_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        TinygrowError: the name is unknown, or a GPU is asked for by name that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    return torch.device(name)


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
