"""Signals, and the death of DVC, as requests to stop."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tinygrow.state.stop import StopRequest

SECONDS_BETWEEN_LOOKS = 1.0
_SAME_PRESS = 0.5  # seconds in which a second SIGINT is taken for the first one
_SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminal closed",
}
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "busybox"}


@contextmanager
def requests(
    started_by: list[int] | None = None, *, watched: bool = False
) -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM, SIGHUP and the death of DVC into requests to stop, for the block.

    Who presses Ctrl-C a second time insists. Signals that the process was told to ignore (`nohup`,
    a background job) stay ignored.

    Args:
        started_by: `parents()` at the start of the program; DVC may have died since.
        watched: the program that started this one is watched as DVC is.
    """
    request = StopRequest()
    orphaned, heard = threading.Event(), threading.Event()
    pressed = 0.0  # when Ctrl-C was, for the first time

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal pressed
        if orphaned.is_set() and number == signal.SIGTERM:
            heard.set()
            starter = "DVC" if os.environ.get("DVC_STAGE") else "program"
            request.ask(f"the {starter} that started it is gone", 128 + signal.SIGTERM)
            return
        now, insist = time.monotonic(), False
        if number == signal.SIGINT:
            insist = 0 < pressed < now - _SAME_PRESS
            pressed = pressed or now
        request.ask(_SIGNALS[signal.Signals(number)], 128 + number, insist=insist)

    before = {}
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, ask)
    over = threading.Event()

    def orphan() -> None:
        # Again until it is heard: Python's handlers run between two steps of the main thread, and
        # a signal that comes just before that thread blocks in a system call does not wake it.
        orphaned.set()
        while not (heard.is_set() or over.is_set()):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            over.wait(SECONDS_BETWEEN_LOOKS)

    watcher = threading.Thread(
        target=_watch, args=(started_by or parents(), orphan, over), name="parents", daemon=True
    )
    try:
        if watched or os.environ.get("DVC_STAGE"):
            watcher.start()
        yield request
    finally:
        over.set()
        try:
            if watcher.is_alive():
                watcher.join()  # nothing is sent once the handlers are those from before
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _watch(known: list[int], orphan: Callable[[], None], over: threading.Event) -> None:
    while not over.is_set():
        if parents() != known:
            orphan()
            return
        over.wait(SECONDS_BETWEEN_LOOKS)


def parents() -> list[int]:
    """Return the processes above this one, up to the first that is no shell: DVC.

    DVC runs a stage's command in a shell, which may or may not have become the command. Without
    Linux's /proc the first process above is all that is known.
    """
    chain = [os.getppid()]
    while (told := _status(chain[-1])) is not None and told[0] in _SHELLS and told[1] > 0:
        chain.append(told[1])
    return chain


def _status(process: int) -> tuple[str, int] | None:
    """Return name and parent of a process."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    return name, int(text[text.rindex(")") + 2 :].split()[1])
