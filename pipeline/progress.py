"""Progress of long work: bars on a terminal, a line now and then elsewhere."""

import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

from tinygrow.observer import Observer

SECONDS_BETWEEN_LINES = 30.0


@dataclass(slots=True)
class _Work:
    """One piece of work under way where no bar can be drawn."""

    title: str
    total: int
    unit: str
    began: float
    told: float
    done: int = 0


class TerminalObserver(Observer):
    """Draws on the error stream, so that standard output stays data.

    Args:
        stream: where to; default: standard error.
        bars: draw bars; default: where the stream is a terminal that can.
        quiet: where no bar can be drawn, tell of no progress at all.
    """

    def __init__(
        self, stream: TextIO | None = None, bars: bool | None = None, *, quiet: bool = False
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        capable = self._stream.isatty() and os.environ.get("TERM", "") != "dumb"
        self._draw = capable if bars is None else bars
        self._quiet = quiet
        self._bars: list[Any] = []
        self._works: list[_Work] = []

    def begin(self, title: str, total: int, unit: str) -> None:
        """Start a bar, or the clock of a piece of work that is told of only if it is long."""
        if not self._draw:
            now = time.monotonic()
            self._works.append(_Work(title, total, unit, began=now, told=now))
            return
        from tqdm import tqdm  # a command that shows no bar need not pay for it

        self._bars.append(
            tqdm(
                total=total,
                desc=title,
                unit=f" {unit}",
                file=self._stream,
                leave=False,
                dynamic_ncols=True,
                position=len(self._bars),
            )
        )

    def advance(self, count: int = 1, **facts: float) -> None:
        """Move the innermost bar; elsewhere tell a line if the last one is long ago."""
        if self._bars:
            if facts:
                self._bars[-1].set_postfix(
                    {name: f"{value:.4g}" for name, value in facts.items()}, refresh=False
                )
            with suppress(OSError):
                self._bars[-1].update(count)
        elif self._works:
            work = self._works[-1]
            work.done += count
            now = time.monotonic()
            if now - work.told >= SECONDS_BETWEEN_LINES and not self._quiet:
                work.told = now
                self.say(_line(work, now - work.began))

    def end(self) -> None:
        """Take the innermost bar away."""
        if self._bars:
            with suppress(OSError):
                self._bars.pop().close()
        elif self._works:
            self._works.pop()

    def say(self, line: str) -> None:
        """Print a line, above the bars if there are any."""
        with suppress(OSError):  # work goes on without a terminal that was closed
            if self._bars:
                self._bars[0].write(line, file=self._stream)
            else:
                print(line, file=self._stream, flush=True)

    def answer(self, line: str) -> None:
        """Print a line of data on standard output, above the bars where both are a terminal."""
        if self._bars and sys.stdout.isatty():
            self._bars[0].write(line, file=sys.stdout)
        else:
            print(line, flush=sys.stdout.isatty())

    def close(self) -> None:
        """Take every bar away: work may end by an error that no `end` followed."""
        while self._bars or self._works:
            self.end()


def _line(work: _Work, seconds: float) -> str:
    rate = work.done / seconds if seconds > 0 else 0.0
    left = max(work.total - work.done, 0) / rate if rate > 0 else 0.0
    return (
        f"{work.title}: {work.done} of {work.total} {work.unit},"
        f" {rate:.3g} a second, {left:.0f} s left"
    )
