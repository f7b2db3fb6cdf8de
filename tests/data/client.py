"""A client of the downloads under test."""

import hashlib
import socket
from pathlib import Path

import pytest

from tests.data.pictures import Ear
from tests.data.server import PATIENCE
from tinygrow.data.fetch import Patience, Remote, fetch
from tinygrow.errors import TinygrowError

CONTENT = bytes(range(256)) * 300
OTHER = CONTENT[::-1]
REMEDY = "do this"


class Client:
    """Fetches `CONTENT` into a folder and remembers how long it was told to wait."""

    def __init__(self, folder: Path, content: bytes = CONTENT) -> None:
        self.target = folder / "archive.tar.gz"
        self.part = folder / "archive.tar.gz.part"
        self.content = content
        self.ear = Ear()
        self.waits: list[float] = []

    def get(self, url: str, *, attempts: int = 3, timeout: float = PATIENCE) -> None:
        md5 = hashlib.md5(self.content).hexdigest()
        remote = Remote(url=url, md5=md5, max_bytes=len(self.content) + 1000, remedy=REMEDY)
        patience = Patience(attempts=attempts, timeout=timeout, sleep=self.waits.append)
        fetch(remote, self.target, patience=patience, observer=self.ear)
        assert self.target.read_bytes() == self.content
        assert self.left == ["archive.tar.gz", "archive.tar.gz.lock"]
        assert self.ear.open == 0

    def fail(self, url: str, **options: float) -> str:
        """Return the one line of the failure."""
        with pytest.raises(TinygrowError) as caught:
            self.get(url, **options)  # type: ignore[arg-type]
        message = str(caught.value)
        assert "\n" not in message
        assert message.endswith(f"; {REMEDY}") and message.startswith(f"cannot download {url}: ")
        assert not self.target.exists()
        assert self.ear.open == 0
        return message

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.target.parent.iterdir())


def closed_port() -> str:
    """Return an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/archive.tar.gz"
