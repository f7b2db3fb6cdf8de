"""A disk that fills up."""

from collections.abc import Iterator

import pytest

from tests.data import pictures


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Writing more than `WRITE_LIMIT` bytes into a file fails, as on a full disk."""
    with pictures.full_disk(pictures.WRITE_LIMIT):
        yield
