"""How long work tells of itself, without knowing who listens."""

from collections.abc import Iterator
from contextlib import contextmanager


class Observer:
    """Listens to long work; this one is silent. Command lines draw bars or print lines."""

    def begin(self, title: str, total: int, unit: str) -> None:
        """Start a piece of work of `total` units (such as `images`)."""

    def advance(self, count: int = 1, **facts: float) -> None:
        """Count `count` more units as done; `facts` (loss, accuracy) are shown beside a bar."""

    def end(self) -> None:
        """End the piece of work begun last."""

    @contextmanager
    def work(self, title: str, total: int, unit: str) -> Iterator[None]:
        """Begin a piece of work and end it, whatever becomes of it."""
        self.begin(title, total, unit)
        try:
            yield
        finally:
            self.end()

    def say(self, line: str) -> None:
        """Tell one line: an epoch's figures, an estimate, a warning."""
