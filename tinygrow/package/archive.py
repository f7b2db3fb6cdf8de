"""Checksums and an archive that hold nothing of the machine: no time, no user, no path."""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

from tinygrow.files import write_bytes, write_text

CHECKSUMS = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` over all files of a folder, as `sha256sum -c` reads it."""
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}\n"
        for file in _files(folder)
        if file.name != CHECKSUMS
    ]
    write_text(folder / CHECKSUMS, "".join(lines))


def write_archive(folder: Path, path: Path, name: str) -> None:
    """Write a folder as .tar.gz; the same files give the same bytes.

    Args:
        folder: to be packed.
        path: of the archive.
        name: of the folder inside of it.
    """
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for file in _files(folder):
            content = file.read_bytes()
            entry = tarfile.TarInfo(f"{name}/{file.relative_to(folder).as_posix()}")
            entry.size, entry.mode, entry.mtime = len(content), 0o644, 0
            archive.addfile(entry, io.BytesIO(content))
    write_bytes(path, packed.getvalue())


def _files(folder: Path) -> list[Path]:
    found = [file for file in folder.rglob("*") if file.is_file()]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())
