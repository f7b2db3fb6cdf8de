"""Folders of image files, whether on disk or in an archive. Paths are relative, with slashes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tinygrow.data.images import read_image_file


@dataclass(frozen=True, slots=True)
class Entries:
    """What lies in one folder, sorted by name; hidden entries and `__MACOSX` left out.

    Attributes:
        folders: names of folders.
        files: names of files.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]


class Tree(Protocol):
    """Read access to a tree of files, from several threads at once."""

    def entries(self, folder: str) -> Entries:
        """List a folder; the empty path is the root."""
        ...

    def read(self, file: str, *, name: str) -> bytes:
        """Read an image file; `name` is what an error calls it."""
        ...


@dataclass(frozen=True, slots=True)
class FolderTree:
    """A folder on disk."""

    root: Path

    def entries(self, folder: str) -> Entries:
        """List a folder; the empty path is the root."""
        folders: list[str] = []
        files: list[str] = []
        with os.scandir(self.root / folder) as found:
            for entry in found:
                (folders if entry.is_dir() else files).append(entry.name)
        return visible(folders, files)

    def read(self, file: str, *, name: str) -> bytes:
        """Read an image file; `name` is what an error calls it."""
        return read_image_file(self.root / file, name=name)


def visible(folders: list[str], files: list[str]) -> Entries:
    """Sort names and leave out hidden ones and what macOS adds to archives."""

    def kept(names: list[str]) -> tuple[str, ...]:
        return tuple(sorted(n for n in names if not n.startswith(".") and n != "__MACOSX"))

    return Entries(kept(folders), kept(files))


def join(folder: str, name: str) -> str:
    """Join a folder's path and a name in it; the root's path is empty."""
    return f"{folder}/{name}" if folder else name
