"""Signals, and the death of DVC, as requests to stop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tinygrow.state.stop import StopRequest

SECONDS_BETWEEN_LOOKS = 1.0
_SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminal closed",
}
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "busybox"}


@contextmanager
def requests() -> Iterator[StopRequest]:
    """Turn SIGINT, SIGTERM, SIGHUP and the death of DVC into requests to stop, for the block.

    Signals that the process was told to ignore (`nohup`, a background job) stay ignored.
    """
    request = StopRequest()
    orphaned = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        if orphaned.is_set():
            request.ask("the DVC that started it is gone", 128 + signal.SIGTERM)
        else:
            request.ask(_SIGNALS[signal.Signals(number)], 128 + number)

    before = {}
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, ask)
    over = threading.Event()

    def orphan() -> None:
        orphaned.set()
        os.kill(os.getpid(), signal.SIGTERM)

    if os.environ.get("DVC_STAGE"):
        watcher = threading.Thread(
            target=_watch, args=(_parents(), orphan, over), name="parents", daemon=True
        )
        watcher.start()
    try:
        yield request
    finally:
        over.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(parents: list[int], orphan: Callable[[], None], over: threading.Event) -> None:
    while not over.wait(SECONDS_BETWEEN_LOOKS):
        if _parents() != parents:
            orphan()
            return


def _parents() -> list[int]:
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
