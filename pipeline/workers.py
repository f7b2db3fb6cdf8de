"""The processes that a stage works in: started, told of signals, and ended together.

The first process does what a stage in one process does: it alone writes files, speaks, and hears
requests to stop. The others follow it; what they hold, it holds as well, so that they may be ended
at any moment. The command that launches them only waits, hands on signals and the exit status. They
get the environment that torchrun gives, which may start them in its place.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from pipeline import params, stopping
from pipeline.closure import ROOT
from tinygrow.distributed import LostError, alone, announced, joined, of_first, processes
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.state.stop import Stop, StopRequest

SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_TO_FAIL = 1.0
"""After the first process that fails, for the others to say what they have to say."""
SECONDS_TO_STOP = 300.0
"""After a request to stop, for the first process to save its state."""
SECONDS_TO_FOLLOW = 10.0
"""After the first process is lost, for those behind it to be ended with nothing to say."""
SECONDS_BEHIND = 2.0
"""By which another process's error follows the first one's, which often is the same."""

T = TypeVar("T")


def launched(
    model: str,
    device: str | None,
    arguments: Sequence[str],
    started_by: list[int] | None = None,
) -> int | None:
    """Run the command in as many processes as the settings ask for; return its exit status.

    Args:
        model: whose `processes` counts.
        device: instead of the one in `params.yaml`.
        arguments: of `python -m pipeline`.
        started_by: see `stopping.requests`.

    Returns:
        None where this very process is to do the work: it is asked to be the only one, or is one of
        several.
    """
    if announced().count > 1:
        return None
    values = params.read()
    count = values.value(model, "processes")
    if count == 0:
        count = _visible(device or values.value(model, "device"))
    if count == 1:
        return None
    return run([sys.executable, "-m", "pipeline", *arguments], count, started_by)


def run(command: Sequence[str], count: int, started_by: list[int] | None = None) -> int:
    """Run a command in `count` processes that work together, and return the exit status of all.

    Raises:
        TinygrowError: one of them was killed, or they do not end when asked to.
    """
    from torch.distributed import TCPStore

    # It picks a free port itself, and lives as long as this process.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started: list[subprocess.Popen[bytes]] = []
    try:
        with stopping.requests(started_by) as stop:
            stop.immediate = False
            for rank in range(count):
                started.append(_start(command, _environment(rank, count, store.port)))
            return _watch(started, stop)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()


def _start(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # A group of its own: Ctrl-C reaches it by the process that waits for it alone.
    return subprocess.Popen(command, env=environment, process_group=0)


def _watch(started: Sequence[subprocess.Popen[bytes]], stop: StopRequest) -> int:
    first, told, failed = started[0], 0.0, 0.0
    while True:
        statuses = [process.poll() for process in started]
        now = time.monotonic()
        if statuses[0] is not None and (statuses[0] > 128 or told):
            return statuses[0]  # it was asked to stop, and the others have nothing to say to that
        if not any(statuses) and None not in statuses:
            return 0
        if any(statuses):
            failed = failed or now
            if None not in statuses or now - failed > SECONDS_TO_FAIL:
                return _failure(statuses)
        if stop.pending is not None and not told:
            told = now
            first.send_signal(stop.pending.status - 128)
        if told and now - told > SECONDS_TO_STOP:
            raise TinygrowError(
                f"process {first.pid} did not end within {SECONDS_TO_STOP:.0f} s of being asked to;"
                " it was killed, and the same command goes on from the last saved state"
            )
        try:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        except Stop as insisting:  # a second Ctrl-C
            first.send_signal(insisting.status - 128)


def _failure(statuses: Sequence[int | None]) -> int:
    for rank, status in enumerate(statuses):
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            raise TinygrowError(
                f"process {rank} of {len(statuses)} was killed by {name}, so the others were ended;"
                " if memory ran out, lower processes or batch_size. The same command goes on from"
                " the last saved state"
            )
    return next(status for status in statuses if status)  # it has said why


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    given = {
        "OMP_NUM_THREADS": str(max(1, (cores or 1) // count)),
        **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
    }
    return {
        **given,
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # The processes are clients of the store that is there, the first one too.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def _visible(device: str) -> int:
    if device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


@contextmanager
def member(
    observer: Observer, started_by: list[int] | None = None
) -> Iterator[tuple[Observer, StopRequest | None]]:
    """Be the only process of a stage, or one of several, for the block.

    Args:
        observer: is told what the first process tells.
        started_by: see `stopping.requests`.

    Yields:
        Whom to tell of the work, and where requests to stop arrive.
    """
    group = announced()
    if group.is_first:
        with stopping.requests(started_by, watched=group.count > 1) as stop, joined():
            of_first((socket.gethostname(), os.getpid()))
            yield observer, stop
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the first process hears them
    follower = _Follower()
    follower.start()
    try:
        with joined():
            host, process = of_first((socket.gethostname(), os.getpid()))
            follower.first = process if host == socket.gethostname() else None
            yield Observer(), None
    except LostError:
        time.sleep(SECONDS_TO_FOLLOW)
        raise
    except Exception as error:
        time.sleep(SECONDS_BEHIND)
        if isinstance(error, TinygrowError):
            raise TinygrowError(f"process {group.rank} of {group.count}: {error}") from error
        raise


def of_the_first(estimate: Callable[[T], Iterable[str]]) -> Callable[[T], Iterable[str]] | None:
    """Return an estimate for the first process, which measures by itself, and none for others."""
    group = processes()
    if group.count == 1:
        return estimate
    if not group.is_first:
        return None

    def lines(work: T) -> Iterator[str]:
        with alone():
            yield from estimate(work)
        yield f"that was measured with one process; {group.count} share the work"

    return lines


class _Follower(threading.Thread):
    """Ends this process when the first one has ended, however deep in a sum it is."""

    def __init__(self) -> None:
        super().__init__(name="follower", daemon=True)
        self.first: int | None = None
        self._launcher = os.getppid()

    def run(self) -> None:
        while self._is_there():
            time.sleep(0.5)
        time.sleep(2 * SECONDS_BEHIND)  # it may be about to end by itself
        os._exit(0)  # whether that was well is the first process's status

    def _is_there(self) -> bool:
        if self.first is None:
            return os.getppid() == self._launcher
        with suppress(ProcessLookupError):
            os.kill(self.first, 0)
            return True
        return False
