"""Small pictures and folders of them for the tests of data."""

import io
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from tinygrow.observer import Observer

WRITE_LIMIT = 20_000  # bytes that `full_disk` lets into a file


class Ear(Observer):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done = 0
        self.open = 0

    def begin(self, title: str, total: int, unit: str) -> None:
        self.open += 1

    def advance(self, count: int = 1, **facts: float) -> None:
        self.done += count

    def end(self) -> None:
        self.open -= 1

    def say(self, line: str) -> None:
        self.lines.append(line)


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Writing more than `limit` bytes into a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(seed: int, size: int = 8) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def classes(counts: Mapping[str, int], start: int = 0) -> dict[str, bytes]:
    """Different images `<folder>/<number>.png`, as many as asked for each folder."""
    files: dict[str, bytes] = {}
    for folder, count in counts.items():
        for number in range(count):
            files[f"{folder}/{number:02}.png"] = encoded(noise(start + len(files)))
    return files


def write(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root
