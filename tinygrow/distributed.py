"""Several processes on one growth or training: what each does of it, and what they agree on.

Every process holds all images and the same generators, so that all draw the same orders and samples
and nothing of them need be sent. Then

- sums over mini-batches are made of whole batches, batch i by process i modulo their count
  (`share`), and added up over the processes (`total`): what comes out is what one process gets, but
  for the order of a float64 sum, also where BatchNorm normalises each batch by itself;
- what is solved or decided is taken from the first process (`once`, `of_first`), so that processes
  never part.

Whatever is neither is computed by each of them alike. All calls are collective: every process makes
the same ones in the same order. Outside of `joined` there is one process, and they do nothing.
"""

import datetime
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import torch
import torch.distributed as collective

from tinygrow.errors import TinygrowError

SECONDS_OF_PATIENCE = 3600.0
"""How long a process waits for the others: the longest solve or save of the first must fit."""

T = TypeVar("T")


class LostError(TinygrowError):
    """Another process is gone, or does not answer; what it said tells why."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that work together, seen from one of them.

    Attributes:
        rank: of this one, from 0.
        count: of all.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one decides, solves, and alone writes files and speaks."""
        return self.rank == 0

    def part(self, size: int) -> slice:
        """Return this process's part of `size` items; parts differ by at most one in length."""
        return slice(size * self.rank // self.count, size * (self.rank + 1) // self.count)


_current = Processes()


def processes() -> Processes:
    """Return those that work together here: one, unless within `joined`."""
    return _current


def announced() -> Processes:
    """Return the processes that the environment tells of, as torchrun sets it; joined or not.

    Raises:
        TinygrowError: the environment is not as torchrun sets it.
    """
    told = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")}
    if not any(told.values()):
        return Processes()
    try:
        group = Processes(int(told["RANK"]), int(told["WORLD_SIZE"]))
    except ValueError:
        group = Processes(0, 0)
    if not 0 <= group.rank < group.count:
        raise TinygrowError(
            f"RANK is {told['RANK']!r} and WORLD_SIZE {told['WORLD_SIZE']!r}; start the processes"
            " by torchrun, or unset both"
        )
    return group


@contextmanager
def joined(seconds: float = SECONDS_OF_PATIENCE) -> Iterator[Processes]:
    """Work together, for the block, with the processes that torchrun has started.

    Sums go by gloo on the CPU, by NCCL on GPUs. Where torchrun has started none, this is one
    process and nothing happens.

    Args:
        seconds: to wait for the others before that is an error.

    Raises:
        LostError: the others do not come, or end on the way.
    """
    global _current
    group = announced()
    if group.count == 1:
        yield _current
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        collective.init_process_group(backend, timeout=datetime.timedelta(seconds=seconds))
        _current = group
        yield group
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise LostError(
            f"process {group.rank} of {group.count} has lost the others; see what they said"
        ) from error
    finally:
        _current = Processes()
    # Not after an error: the others may wait in a sum that this one will never join.
    collective.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """Work by oneself for the block, while others go another way: nothing is shared in it."""
    global _current
    group, _current = _current, Processes()
    try:
        yield
    finally:
        _current = group


def share(batches: Iterable[T]) -> Iterator[T]:
    """Yield the batches that are this process's: every one, or each `count`-th from `rank` on."""
    group = _current
    if isinstance(batches, Sequence):  # which makes a batch only when it is asked for
        return (batches[i] for i in range(group.rank, len(batches), group.count))
    return itertools.islice(batches, group.rank, None, group.count)


def total(
    images: int, sums: Callable[[], Sequence[torch.Tensor]]
) -> tuple[int, list[torch.Tensor]]:
    """Return images and sums of all processes together, the same in each.

    Args:
        images: that this process has looked at. Where there were fewer batches than processes, it
            is 0 in the last ones, and `sums` is not asked; the first process has some.
        sums: gives what this process has summed; changed in place, or summed in float64.
    """
    if _current.count == 1:
        return images, list(sums())
    # In one precision: a process that had few batches may have summed in a lower one.
    own = [tensor.double() for tensor in sums()] if images else []
    told = of_first([(t.shape, t.dtype, t.device.type) for t in own])
    own = own or [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in told]
    (together,) = add_up(torch.tensor([images]))
    return int(together), [add_up(tensor) for tensor in own]


def add_up(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over the processes, in place; return it."""
    if _current.count > 1:
        collective.all_reduce(tensor)
    return tensor


def equalise(tensors: Iterable[torch.Tensor]) -> None:
    """Give tensors the values that the first process has, in place."""
    if _current.count > 1:
        for tensor in tensors:
            collective.broadcast(tensor, src=0)


def of_first(value: T) -> T:
    """Return the first process's value: plain values, tensors, and dataclasses and lists of them.

    Tensors that are on its GPU come onto this process's own.
    """
    if _current.count == 1:
        return value
    boxes = [_packed(value) if _current.is_first else None]
    collective.broadcast_object_list(boxes, src=0, device=torch.device("cpu"))
    return value if _current.is_first else cast(T, _unpacked(boxes[0]))


def once(work: Callable[..., T], *arguments: Any) -> T:
    """Return `work(*arguments)`, which only the first process computes.

    Args:
        work: computes without sums over processes, and draws from no generator that they share.
        arguments: the same in every process.
    """
    if _current.count == 1:
        return work(*arguments)
    result: Any = None
    if _current.is_first:
        with alone():
            result = work(*arguments)
    return cast(T, of_first(result))


@dataclass(frozen=True, slots=True)
class _OnGpu:
    """A tensor under way, which pickle would bring to the sender's GPU."""

    tensor: torch.Tensor


def _packed(value: Any) -> Any:
    return _mapped(value, lambda t: _OnGpu(t.detach().cpu()) if t.is_cuda else t.detach())


def _unpacked(value: Any) -> Any:
    return _mapped(value, lambda t: t)


def _mapped(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    match value:
        case torch.Tensor():
            return change(value)
        case _OnGpu():
            return value.tensor.to(torch.device("cuda", torch.cuda.current_device()))
        case dict():
            return {key: _mapped(item, change) for key, item in value.items()}
        case list():
            return [_mapped(item, change) for item in value]
        case tuple() if type(value) is tuple:
            return tuple(_mapped(item, change) for item in value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            changed = {f.name: _mapped(getattr(value, f.name), change) for f in fields(value)}
            return replace(value, **changed)
    return value


def _is_of_connection(error: RuntimeError) -> bool:
    """Say whether an error tells of another process that is gone; gloo's have no class."""
    return isinstance(error, collective.DistError) or "gloo" in str(error)
