"""A disk that fills up, and a client of downloads."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data import pictures
from tests.data.client import Client


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client that no proxy comes between."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return Client(tmp_path / "cache")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Writing more than `WRITE_LIMIT` bytes into a file fails, as on a full disk."""
    with pictures.full_disk(pictures.WRITE_LIMIT):
        yield
