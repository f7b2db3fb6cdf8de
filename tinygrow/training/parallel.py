"""A network in training by several processes; with one of them nothing here does anything.

BatchNorm normalises what each process has of a mini-batch by itself, as is usual with PyTorch's
DistributedDataParallel; a batch should leave each process a few dozen images. Running statistics
are the first process's.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tinygrow.distributed import equalise, processes


@contextmanager
def in_parallel(network: nn.Module) -> Iterator[nn.Module]:
    """Yield what to call in place of `network`, so that gradients are means over processes.

    It lasts for the block, as it knows the parameters there were at its beginning: surgery is done
    between blocks. All processes begin with the first one's weights.

    Args:
        network: that is trained; optimiser and surgery go on with it as it is.
    """
    if processes().count == 1:
        yield network
        return
    device = next(network.parameters()).device
    with warnings.catch_warnings():
        # Kernels with one input channel have strides of either layout; that costs a copy of them.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        yield DistributedDataParallel(
            network, device_ids=[device] if device.type == "cuda" else None
        )


def same_buffers(*networks: nn.Module | None) -> None:
    """Give networks the first process's buffers, such as the running statistics of BatchNorm."""
    for network in networks:
        if network is not None:
            equalise(network.buffers())


def draw_apart(rank: int, seed: int, step: int) -> None:
    """Let layers such as dropout draw other numbers in each process, the same in a resumed run.

    Args:
        rank: of the process.
        seed: of the run.
        step: something that is another at each step.
    """
    # Odd constants, so that neighbours do not meet; PyTorch's generators take 64 bits.
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank) % 2**63
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(mixed)
