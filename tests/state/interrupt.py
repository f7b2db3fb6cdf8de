"""Work that is stopped again and again, as if its process ended each time."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tinygrow.observer import Observer
from tinygrow.state.folder import StateFolder
from tinygrow.state.keeper import Capture, Keeper, StateKeeper
from tinygrow.state.stop import Stop, StopRequest

T = TypeVar("T")
NEVER = 1e9


class Stopping(StateKeeper):
    """Asks to stop at its n-th point: before a step's end or in the middle of a held stretch."""

    def __init__(self, folder: StateFolder, at: int, observer: Observer | None = None) -> None:
        self._request = StopRequest()
        super().__init__(folder, seconds=NEVER, stop=self._request, observer=observer)
        self._left = at

    def _passes(self) -> bool:
        self._left -= 1
        return self._left != 0

    def step(self, capture: Capture) -> None:
        if not self._passes():
            self._request.ask("test", 130)
        super().step(capture)

    def held(self, capture: Capture):  # type: ignore[no-untyped-def]
        block = super().held(capture)
        if self._passes():
            return block
        return _Asking(block, self._request)


class _Asking:
    """Leaves a held stretch at its end, when all of its work is done but none is kept."""

    def __init__(self, block, request: StopRequest) -> None:  # type: ignore[no-untyped-def]
        self._block, self._request = block, request

    def __enter__(self) -> None:
        self._block.__enter__()

    def __exit__(self, *error: object) -> bool | None:
        try:
            self._request.ask("test", 130)
        except Stop as stop:
            return self._block.__exit__(Stop, stop, stop.__traceback__)
        raise AssertionError("a held stretch did not stop at once")


def run_in_pieces(folder: Path, work: Callable[[Keeper], T], points: int) -> tuple[T, int]:
    """Run `work` in pieces of `points` points each; return its result and how often it stopped.

    Args:
        folder: of the states.
        work: everything that a process would do: it makes all its objects itself.
        points: between two stops, at least 1.
    """
    stops = 0
    while True:
        with StateFolder(folder, {}) as states:
            keeper = Stopping(states, at=points + 1)
            try:
                with keeper.running():
                    return work(keeper), stops
            except Stop as stop:
                assert stop.saved
                stops += 1
                assert stops < 1000, "no progress"
