"""Small archives in the layout of the official ones, and their sums in torchvision's place."""

import hashlib
import io
import pickle
import tarfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

PARTS = {
    CIFAR10: {**{f"data_batch_{n}": 20 for n in range(1, 6)}, "test_batch": 20},
    CIFAR100: {"train": 300, "test": 100},
}
LABELS = {CIFAR10: "labels", CIFAR100: "fine_labels"}
CLASSES = {CIFAR10: 10, CIFAR100: 100}


class Trap:
    """Makes an empty file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


class OldArray:
    """Warns as an array of 2009 does when some versions of NumPy unpickle it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return warnings.warn, ("align", np.exceptions.VisibleDeprecationWarning)


@dataclass
class Archive:
    """The files of a small archive.

    Attributes:
        official: torchvision's class.
        files: content of each, by its name.
        images: uint8 (N, 3, 32, 32) of each part, by its name.
        labels: likewise (N,).
    """

    official: type[CIFAR10]
    files: dict[str, bytes]
    images: dict[str, np.ndarray] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    def packed(self, more: dict[str, bytes] | None = None) -> bytes:
        """Return the tar.gz, with `more` members by their whole names."""
        folder = self.official.base_folder
        members = {f"{folder}/{name}": content for name, content in self.files.items()}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
            for name, content in (members | (more or {})).items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    def make_official(self, monkeypatch: pytest.MonkeyPatch, packed: bytes) -> None:
        """Let torchvision take the sums of these files, and of `packed`, for the official ones."""

        def with_sum(file: str) -> list[str]:
            return [file, md5(self.files[file])]

        monkeypatch.setattr(self.official, "tgz_md5", md5(packed))
        for name in ("train_list", "test_list"):
            parts = [with_sum(file) for file, _ in getattr(self.official, name)]
            monkeypatch.setattr(self.official, name, parts)
        file = self.official.meta["filename"]
        meta = self.official.meta | {"md5": md5(self.files[file])}
        monkeypatch.setattr(self.official, "meta", meta)


def small_archive(official: type[CIFAR10]) -> Archive:
    """Noise in the official layout, all classes in each part."""
    random = np.random.default_rng(0)
    archive = Archive(official, {})
    for name, count in PARTS[official].items():
        images = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        labels = random.permutation(count) % CLASSES[official]
        part = {"data": images.reshape(count, -1), LABELS[official]: labels.tolist()}
        part["old"] = OldArray()
        archive.files[name] = _pickled(part)
        archive.images[name], archive.labels[name] = images, labels
    meta = {official.meta["key"]: [f"class {n}" for n in range(CLASSES[official])]}
    archive.files[official.meta["filename"]] = _pickled(meta)
    archive.files["readme.html"] = b"<html>"
    return archive


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class _OldPickler(pickle.Pickler):
    """Writes arrays as NumPy did in 2009, when the official archives were made."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.dtype):
            return np.dtype, (value.str[1:], 0, 1), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


def _pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    _OldPickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")
