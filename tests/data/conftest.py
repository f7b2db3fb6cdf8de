"""A disk that fills up."""

import resource
from collections.abc import Iterator

import pytest

from tests.data.pictures import WRITE_LIMIT


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Writing more than `WRITE_LIMIT` bytes into a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITE_LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
