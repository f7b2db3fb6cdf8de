import io
import os
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.pictures import WRITE_LIMIT, Ear
from tinygrow.data.archive import unpacked
from tinygrow.errors import TinygrowError

FILES = {"train/a/1.png": b"one", "train/b/2.png": b"two" * 1000, "README": b""}
TAR_MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make(path: Path, form: str, files: dict[str, bytes]) -> Path:
    return make_zip(path, files) if form == "zip" else make_tar(path, files, TAR_MODES[form])


def open_(path: Path, ear: Ear | None = None, max_files: int = 100, max_bytes: int = 10**6):
    return unpacked(path, max_files=max_files, max_bytes=max_bytes, observer=ear or Ear())


def refused(path: Path, message: str, **limits: int) -> None:
    ear = Ear()
    with pytest.raises(TinygrowError, match=message) as caught, open_(path, ear, **limits):
        pass
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert ear.open == 0


forms = pytest.mark.parametrize("form", [*TAR_MODES, "zip"])


@forms
def test_every_form_is_known_by_content(tmp_path, form):
    path, ear = make(tmp_path / "images.data", form, FILES), Ear()
    with open_(path, ear) as tree:
        assert tree.entries("").folders == ("train",) and tree.entries("").files == ("README",)
        assert tree.entries("train").folders == ("a", "b")
        for name, content in FILES.items():
            assert tree.read(name, name=name) == content
    assert ear.open == 0 and 0 < ear.done <= path.stat().st_size
    assert list(tmp_path.iterdir()) == [path]


@forms
@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/etc/out.png", "..\\out.png"])
def test_paths_outside_are_refused(tmp_path, form, name):
    refused(make(tmp_path / "bad", form, {"a/1.png": b"x", name: b"x"}), "a path outside of it")


@forms
def test_endless_names_are_refused(tmp_path, form):
    refused(make(tmp_path / "bad", form, {"a/" * 3000 + "x": b""}), "6001 characters")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
        (tarfile.GNUTYPE_SPARSE, "a device or another special file"),
    ],
)
def test_tar_of_links_and_devices_is_refused(tmp_path, kind, message):
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        member = tarfile.TarInfo("a/odd.png")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    refused(tmp_path / "bad.tar", f"holds 'a/odd.png', {message}")


@pytest.mark.parametrize(
    ("kind", "message"), [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "a device")]
)
def test_zip_of_links_and_devices_is_refused(tmp_path, kind, message):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        member = zipfile.ZipInfo("a/odd.png")
        member.create_system, member.external_attr = 3, (kind | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    refused(tmp_path / "bad.zip", f"holds 'a/odd.png', {message}")


def test_encrypted_zip_is_refused(tmp_path):
    path = make_zip(tmp_path / "secret.zip", {"a/1.png": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "an encrypted file")


@forms
def test_more_bytes_than_allowed_are_refused(tmp_path, form):
    path = make(tmp_path / "bomb", form, {"a/1.png": bytes(600_000), "a/2.png": bytes(600_000)})
    refused(path, r"unpacks to more than 0.001 GB; raise max_gigabytes")


def test_a_lying_zip_is_counted_as_it_unpacks(tmp_path):
    path = make_zip(tmp_path / "bomb.zip", {"a/1.png": bytes(3_000_000)})
    content = path.read_bytes().replace((3_000_000).to_bytes(4, "little"), b"\x10\0\0\0")
    path.write_bytes(content)
    refused(path, "damaged")


@forms
def test_more_files_than_allowed_are_refused(tmp_path, form):
    path = make(tmp_path / "many", form, {f"a/{number}": b"" for number in range(20)})
    refused(path, "more than 20 files and folders; raise max_files", max_files=20)
    with open_(path, max_files=21) as tree:
        assert len(tree.entries("a").files) == 20


def test_nested_folders_count_as_entries(tmp_path):
    path = make_tar(tmp_path / "deep.tar", {"a/" * 500 + "x": b""})
    refused(path, "more than 400 files and folders", max_files=400)


def test_a_huge_header_is_refused_before_it_fills_the_memory(tmp_path):
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("pax")
        member.type, member.size = tarfile.XHDTYPE, 50_000_000
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    refused(tmp_path / "bomb.tar.gz", "a header is too large", max_bytes=10**9)


@forms
def test_cut_off_archives_are_refused_wherever_the_cut(tmp_path, form):
    path = make(tmp_path / "cut", form, {"a/1.png": os.urandom(3000), "a/2.png": os.urandom(3000)})
    content = path.read_bytes()
    end = len(content) if form != "tar" else 2 * (512 + 3072) + 1  # what follows are zeros
    for length in (1, 100, 512, end // 3, end // 2, end * 2 // 3, end - 600, end - 1):
        path.write_bytes(content[:length])
        refused(path, "damaged")


def test_a_tar_cut_between_two_files_is_refused(tmp_path):
    path = make_tar(tmp_path / "cut.tar", {"a/1.png": b"x" * 512, "a/2.png": b"x" * 512})
    path.write_bytes(path.read_bytes()[:1024])
    refused(path, "the end mark is missing")


@pytest.mark.parametrize("content", [b"", b"hello", b"Rar!\x1a\x07\0", bytes(range(256)) * 40])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "odd.rar").write_bytes(content)
    refused(tmp_path / "odd.rar", "is not a tar or zip archive")


def test_missing_archive_is_named(tmp_path):
    refused(tmp_path / "gone.tar", "cannot read")


@forms
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice_is_refused(tmp_path, form):
    refused(make(tmp_path / "one", form, {"a/1": b"x", "./a/1": b"y"}), "'./a/1' twice")
    refused(make(tmp_path / "two", form, {"a": b"x", "a/1": b"y"}), "'a/1' twice")
    refused(make(tmp_path / "three", form, {"a/1": b"x", "./a": b"y"}), "'./a' twice")


def test_hidden_entries_and_folders_of_macos_are_left_out(tmp_path):
    path = make_tar(tmp_path / "mac.tar", {"a/.x": b"", "a/y": b"", "__MACOSX/a/y": b"", ".z": b""})
    with open_(path) as tree:
        assert tree.entries("").folders == ("a",) and tree.entries("").files == ()
        assert tree.entries("a").files == ("y",)


def test_a_full_disk_is_one_error(tmp_path, full_disk, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "images.tar.gz"
    make_tar(path, {"a/1.png": bytes(WRITE_LIMIT * 2)}, "w:gz")
    refused(path, "cannot unpack .* free disk space, or set TMPDIR")
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_behind_by_an_error_within_the_block(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = make_tar(tmp_path / "images.tar", FILES)
    with pytest.raises(KeyboardInterrupt), open_(path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [path]


@given(st.sampled_from([*TAR_MODES, "zip"]), st.data(), st.integers(0, 255))
def test_a_changed_byte_is_an_archive_or_one_error(tmp_path_factory, form, data, value):
    path = make(tmp_path_factory.mktemp("changed") / "x", form, FILES)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = value
    path.write_bytes(content)
    try:
        with open_(path) as tree:
            assert tree.entries("") is not None
    except TinygrowError as error:
        assert str(path) in str(error)
