"""Safe unpacking of tar (plain, gz, bz2, xz) and zip archives from anywhere.

What an archive says of itself is not believed: every byte is counted as it comes out. All files go
into one nameless temporary file, one after another, so that no name in an archive ever reaches the
file system (and because making 60,000 small files can take longer than decoding them). The system
removes that file however the program ends.
"""

import bz2
import errno
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tinygrow.data.images import check_file_size
from tinygrow.data.tree import Entries, join, visible
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer

_CHUNK = 2**20
_LONGEST_NAME = 4096
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HEADERS = 2**22  # a tar header may announce a name of any length; more than this is an attack
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_DECOMPRESSORS: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    NotImplementedError,  # a compression of zip that Python lacks
)


class ArchiveTree:
    """The files of an archive, unpacked one after another into `spool`, under limits.

    Args:
        archive: what errors call it.
        spool: a temporary file.
        max_files: more entries (files, folders) are refused.
        max_bytes: more unpacked bytes are refused.
    """

    def __init__(self, archive: str, spool: IO[bytes], max_files: int, max_bytes: int) -> None:
        self._archive = archive
        self._spool = spool
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._entries = 0
        self._bytes = 0
        self._files: dict[str, tuple[int, int]] = {}  # path: offset and size in the spool
        self._folders: dict[str, tuple[set[str], list[str]]] = {"": (set(), [])}

    def entries(self, folder: str) -> Entries:
        """List a folder; the empty path is the root."""
        folders, files = self._folders[folder]
        return visible(list(folders), files)

    def read(self, file: str, *, name: str) -> bytes:
        """Read an image file; `name` is what an error calls it."""
        offset, size = self._files[file]
        check_file_size(name, size)
        return os.pread(self._spool.fileno(), size, offset)

    def add_folder(self, name: str) -> None:
        """Add a folder and those above it."""
        self._make_folder(name, self._parts(name))

    def add_file(
        self, name: str, content: IO[bytes], before: Callable[[], None] = lambda: None
    ) -> None:
        """Copy a file; `before` is called before each chunk is read."""
        parts = self._parts(name)
        path = "/".join(parts)
        if path in self._files or path in self._folders:
            raise self._clash(name)
        folder = self._make_folder(name, parts[:-1])
        offset = self._bytes
        while True:
            before()
            chunk = content.read(_CHUNK)
            if not chunk:
                break
            self.count(len(chunk))
            self._spool.write(chunk)
        self._folders[folder][1].append(parts[-1])
        self._files[path] = offset, self._bytes - offset

    def count(self, size: int) -> None:
        """Count bytes that came out of the archive."""
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise TinygrowError(
                f"{self._archive} unpacks to more than {self._max_bytes / 1e9:g} GB; raise"
                " max_gigabytes if you trust it"
            )

    def refusal(self, name: str, kind: str) -> TinygrowError:
        """Return the error for an entry that is neither a plain file nor a folder."""
        return TinygrowError(
            f"{self._archive} holds {name!r}, {kind}; pack the images again, as plain files"
        )

    def _parts(self, name: str) -> tuple[str, ...]:
        """Count an entry and return the parts of its path, or refuse its name."""
        self._count_entry()
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in name or len(name) > _LONGEST_NAME:
            raise TinygrowError(
                f"{self._archive} holds {name[:80]!r}, a path outside of it or of"
                f" {len(name)} characters; do not trust this archive, or pack the images again"
            )
        return path.parts

    def _make_folder(self, name: str, parts: tuple[str, ...]) -> str:
        folder = ""
        for part in parts:
            below = join(folder, part)
            if below in self._files:
                raise self._clash(name)
            if below not in self._folders:
                self._count_entry()
                self._folders[folder][0].add(part)
                self._folders[below] = set(), []
            folder = below
        return folder

    def _count_entry(self) -> None:
        self._entries += 1
        if self._entries > self._max_files:
            raise TinygrowError(
                f"{self._archive} holds more than {self._max_files:,} files and folders; raise"
                " max_files if you trust it"
            )

    def _clash(self, name: str) -> TinygrowError:
        return TinygrowError(f"{self._archive} holds {name!r} twice; pack the images again")


@contextmanager
def unpacked(
    archive: Path, *, max_files: int, max_bytes: int, observer: Observer
) -> Iterator[ArchiveTree]:
    """Unpack an archive for the time of the block.

    Args:
        archive: tar, tar.gz, tar.bz2, tar.xz or zip, told apart by content, not by name.
        max_files: more entries (files, folders) are refused.
        max_bytes: more unpacked bytes are refused.
        observer: is told how many bytes of the archive are read.

    Raises:
        TinygrowError: the archive is missing, damaged, cut off, encrypted or over a limit, holds
            links, devices or paths outside of it, or the disk is full.
    """
    spool = _spool(archive)
    try:
        tree = ArchiveTree(str(archive), spool, max_files, max_bytes)
        _unpack(archive, tree, observer)
        try:
            spool.flush()
        except OSError as error:
            raise _disk_error(archive, error) from error
        yield tree
    finally:
        with suppress(OSError):  # closing writes what a full disk has refused before
            spool.close()


def _spool(archive: Path) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(prefix="tinygrow-", buffering=_CHUNK)
    except OSError as error:
        raise _disk_error(archive, error) from error


def _unpack(archive: Path, tree: ArchiveTree, observer: Observer) -> None:
    try:
        file = archive.open("rb")
    except OSError as error:
        raise TinygrowError(
            f"cannot read {archive}: {error.strerror or error}; check its path and permissions"
        ) from error
    with file:
        magic = file.read(6)
        file.seek(0)
        observer.begin(f"unpack {archive.name}", archive.stat().st_size, "B")
        try:
            if magic.startswith(_ZIP_MAGIC):
                _unpack_zip(file, tree, observer)
            else:
                _unpack_tar(file, magic, tree, observer)
        except _DAMAGED as error:
            raise _damage_error(archive, error) from error
        except OSError as error:
            if error.errno in _DISK:
                raise _disk_error(archive, error) from error
            raise _damage_error(archive, error) from error  # so do gzip and bz2 call bad data
        finally:
            observer.end()


class _Meter:
    """A stream from which only as much can be read as was allowed: tarfile has no such limit."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._count = 0
        self._allowed = 0
        self.tail = b""

    def allow(self, size: int) -> None:
        """Allow `size` bytes from here on, and one record that tarfile reads ahead."""
        self._allowed = self._count + size + tarfile.RECORDSIZE

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._count += len(data)
        if self._count > self._allowed:
            raise tarfile.ReadError("a header is too large")
        self.tail = (self.tail + data)[-tarfile.BLOCKSIZE :]
        return data


def _unpack_tar(file: IO[bytes], magic: bytes, tree: ArchiveTree, observer: Observer) -> None:
    opener = next((open_ for start, open_ in _DECOMPRESSORS if magic.startswith(start)), None)
    meter = _Meter(file if opener is None else opener(file))
    meter.allow(_HEADERS)
    told = 0
    with tarfile.open(fileobj=meter, mode="r|") as tar:  # type: ignore[call-overload]
        while True:
            meter.allow(_HEADERS)
            member = tar.next()
            if member is None:
                break
            _unpack_member(tar, member, meter, tree)
            tar.members = []  # they would pile up, one an image
            told, before = file.tell(), told
            observer.advance(told - before)
    while True:  # the rest, so that the checksum of the compressed stream is compared
        meter.allow(_CHUNK)
        rest = meter.read(_CHUNK)
        if not rest:
            break
        tree.count(len(rest))
    observer.advance(file.tell() - told)
    if any(meter.tail):  # a tar ends in zeros; tarfile takes an end without them for one
        raise tarfile.ReadError("the end mark is missing")


def _unpack_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, meter: _Meter, tree: ArchiveTree
) -> None:
    if member.isdir():
        tree.add_folder(member.name)
    elif member.isfile() and not member.issparse():
        content = tar.extractfile(member)
        assert content is not None
        tree.add_file(member.name, content, lambda: meter.allow(_CHUNK + _HEADERS))
    elif member.issym() or member.islnk():
        raise tree.refusal(member.name, "a link")
    else:
        raise tree.refusal(member.name, "a device or another special file")


def _unpack_zip(file: IO[bytes], tree: ArchiveTree, observer: Observer) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16) if member.create_system == 3 else 0
            if member.is_dir():
                tree.add_folder(member.filename)
            elif kind == stat.S_IFLNK:
                raise tree.refusal(member.filename, "a link")
            elif kind not in (0, stat.S_IFREG):
                raise tree.refusal(member.filename, "a device or another special file")
            elif member.flag_bits & 1:
                raise tree.refusal(member.filename, "an encrypted file")
            else:
                with archive.open(member) as content:
                    tree.add_file(member.filename, content)
            observer.advance(member.compress_size)


def _damage_error(archive: Path, error: Exception) -> TinygrowError:
    return TinygrowError(
        f"{archive} is not a tar or zip archive, or is damaged or cut off ({error}); copy it anew,"
        " or pack the images again"
    )


def _disk_error(archive: Path, error: OSError) -> TinygrowError:
    return TinygrowError(
        f"cannot unpack {archive}: {error.strerror or error}; free disk space, or set TMPDIR to a"
        " folder with more"
    )
