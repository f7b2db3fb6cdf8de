"""When the state of long work is saved, and where the work may be stopped.

Work calls a keeper at points from which it could go on:

- after each training step (`step`), where a state is made only if it is needed;
- before a stretch without such points, such as an extension (`held`), where the state of its
  beginning is made, so that the stretch may be left at any moment.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinygrow.distributed import of_first
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.state.folder import StateFolder
from tinygrow.state.stop import Stop, StopRequest

State = dict[str, Any]
"""Tensors on the CPU and plain values; `progress` is a line for people."""
Capture = Callable[[], State]


class Keeper:
    """Keeps the state of long work; this one keeps nothing."""

    def restore(self) -> State | None:
        """Return the state to go on from, if there is one."""
        return None

    def step(self, capture: Capture) -> None:
        """Offer the state at a point from which work can go on."""

    @contextmanager
    def held(self, capture: Capture) -> Iterator[None]:
        """Hold the state of this moment while the block, which has no such points, runs."""
        yield

    def done(self, capture: Capture) -> None:
        """Offer the state of the end: with it, a second run only has the results to write."""


class StateKeeper(Keeper):
    """Keeps state in a folder, every so often and when work is asked to stop.

    Args:
        folder: locked by this process.
        seconds: between two saves.
        stop: where requests to stop arrive.
        observer: is told of restored and damaged states.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        folder: StateFolder,
        *,
        seconds: float,
        stop: StopRequest | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._stop = stop or StopRequest()
        self._observer = observer or Observer()
        self._clock = clock
        self._saved_at = clock()
        self._latest: State | None = None
        self._saved: State | None = None
        self._restored = False

    @property
    def folder(self) -> Path:
        """Where the states lie; other files that belong to them may lie there too."""
        return self._folder.path

    @contextmanager
    def running(self) -> Iterator[None]:
        """Save the latest state if the block is left by a request to stop.

        A request that came while results were written is met at the end. The state stays: it is
        needed until whoever asked for the work has taken over its results.
        """
        try:
            yield
            self._stop.immediate = False
            if self._stop.pending is not None:
                raise self._stop.pending
        except Stop as stop:
            self._stop.immediate = False
            self._tell(stop)
            if self._latest is not None and self._latest is not self._saved:
                self._save(self._latest)
                self._tell(stop)
            raise

    def restore(self) -> State | None:
        """Return the newest state of the folder that can be read; a second call, the same one.

        Processes that work along with this one get it from here: see `Follower`.
        """
        if not self._restored:
            self._restored = True
            state = self._folder.load(self._observer)
            if state is not None:
                self._latest = self._saved = state
                self._observer.say(f"going on from {state['progress']} ({self._folder.path})")
            of_first(state)
        return self._saved

    def step(self, capture: Capture) -> None:
        """Save if it is time; stop if that was asked for."""
        self._stop.immediate = False
        if self._stop.pending is not None:
            self._latest = capture()
            raise self._stop.pending
        if self._due():
            self._try_to_save(capture())

    @contextmanager
    def held(self, capture: Capture) -> Iterator[None]:
        """Hold the state of this moment; a request to stop in the block is met at once."""
        self._stop.immediate = False
        self._latest = capture()
        if self._stop.pending is not None:
            raise self._stop.pending
        if self._due():
            self._try_to_save(self._latest)
        self._stop.immediate = True
        if self._stop.pending is not None:  # it came between the two lines above
            raise self._stop.pending
        try:
            yield
        finally:
            self._stop.immediate = False

    def done(self, capture: Capture) -> None:
        """Save the state of the end."""
        self._stop.immediate = False
        self._latest = capture()
        self._try_to_save(self._latest)

    def _tell(self, stop: Stop) -> None:
        if self._saved is not None:
            stop.saved = str(self._saved["progress"])

    def _due(self) -> bool:
        return self._clock() - self._saved_at >= self._seconds

    def _try_to_save(self, state: State) -> None:
        """Save, or warn: a full disk is no reason to end the work of days."""
        try:
            self._save(state)
        except TinygrowError as error:
            self._saved_at = self._clock()
            self._observer.say(f"warning: the state is not saved, work goes on: {error}")

    def _save(self, state: State) -> None:
        self._folder.save(state)
        self._latest = self._saved = state
        self._saved_at = self._clock()
