import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinygrow.errors import TinygrowError
from tinygrow.files import atomic_folder, atomic_path, write_bytes, write_json, write_text

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestAtomicPath:
    def test_the_file_appears_when_the_block_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "file.txt"
        with atomic_path(path) as temporary:
            assert temporary.parent == path.parent, "a rename must not cross file systems"
            temporary.write_text("new")
            assert not path.exists()
        assert path.read_text() == "new"
        assert names(path.parent) == ["file.txt"]

    def test_readers_see_the_old_content_until_then(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        with atomic_path(path) as temporary, path.open() as reader:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert reader.closed

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    @pytest.mark.parametrize("there", [True, False])
    def test_an_exception_leaves_everything_as_it_was(
        self, error: type[BaseException], there: bool, tmp_path: Path
    ) -> None:
        path = tmp_path / "file"
        if there:
            path.write_text("old")
        with pytest.raises(error), atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error
        assert names(tmp_path) == (["file"] if there else [])
        assert not there or path.read_text() == "old"

    def test_a_disk_that_fills_up_while_writing(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        with (
            pytest.raises(TinygrowError, match=r"cannot write .*file: No space.*free disk space"),
            atomic_path(path) as temporary,
        ):
            temporary.write_text("half")
            raise FULL
        assert names(tmp_path) == ["file"] and path.read_text() == "old"

    def test_a_disk_that_turns_out_full_at_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int) -> None:
            raise FULL

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(TinygrowError, match="No space"):
            write_text(tmp_path / "file", "new")
        assert names(tmp_path) == []

    def test_content_is_on_disk_before_the_name_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []
        replace = Path.replace
        monkeypatch.setattr(os, "fsync", lambda descriptor: order.append("fsync"))
        monkeypatch.setattr(
            Path, "replace", lambda self, to: order.append("replace") or replace(self, to)
        )
        write_text(tmp_path / "file", "new")
        assert order == ["fsync", "replace"]

    @not_as_root
    def test_a_folder_that_may_not_be_written(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(TinygrowError, match=r"cannot write .*Permission denied"):
                write_text(tmp_path / "file", "new")
        finally:
            tmp_path.chmod(0o700)

    def test_a_parent_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "parent").write_text("x")
        with pytest.raises(TinygrowError, match="cannot write"):
            write_text(tmp_path / "parent" / "file", "new")
        assert (tmp_path / "parent").read_text() == "x"

    def test_a_target_that_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "target" / "inside").mkdir(parents=True)
        with pytest.raises(TinygrowError, match="cannot write"):
            write_text(tmp_path / "target", "new")
        assert names(tmp_path) == ["target"] and names(tmp_path / "target") == ["inside"]

    def test_permissions_follow_the_umask(self, tmp_path: Path, umask: int) -> None:
        write_text(tmp_path / "file", "new")
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
        assert os.umask(umask) == umask, "the process's own umask is left alone"


class TestAtomicFolder:
    def test_the_folder_appears_when_the_block_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "folder"
        with atomic_folder(path) as temporary:
            (temporary / "inside").write_text("new")
            assert not path.exists()
        assert names(path) == ["inside"] and names(path.parent) == ["folder"]

    def test_an_old_folder_is_replaced_as_a_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "folder"
        (path / "deep").mkdir(parents=True)
        (path / "deep" / "stale").write_text("old")
        with atomic_folder(path) as temporary:
            (temporary / "fresh").write_text("new")
            assert names(path) == ["deep"]
        assert names(path) == ["fresh"] and names(tmp_path) == ["folder"]

    @pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), FULL])
    @pytest.mark.parametrize("there", [True, False])
    def test_an_exception_leaves_everything_as_it_was(
        self, error: BaseException, there: bool, tmp_path: Path
    ) -> None:
        path = tmp_path / "folder"
        if there:
            path.mkdir()
            (path / "old").touch()
        expected = TinygrowError if error is FULL else type(error)
        with pytest.raises(expected), atomic_folder(path) as temporary:
            (temporary / "half").touch()
            raise error
        assert names(tmp_path) == (["folder"] if there else [])
        assert not there or names(path) == ["old"]

    def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "folder"
        path.mkdir()
        (path / "old").touch()
        replace = Path.replace

        def fail_on_the_new(self: Path, target: Path) -> Path:
            if (self / "new").exists():
                raise FULL
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", fail_on_the_new)
        with pytest.raises(TinygrowError, match="No space"), atomic_folder(path) as temporary:
            (temporary / "new").touch()
        assert names(tmp_path) == ["folder"] and names(path) == ["old"]

    def test_a_target_that_is_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "folder"
        path.write_text("old")
        with pytest.raises(TinygrowError, match="cannot write"), atomic_folder(path):
            pass
        assert path.read_text() == "old" and names(tmp_path) == ["folder"]

    def test_permissions_follow_the_umask(self, tmp_path: Path, umask: int) -> None:
        with atomic_folder(tmp_path / "folder"):
            pass
        assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


class TestWriters:
    def test_bytes_are_written_as_they_are(self, tmp_path: Path) -> None:
        write_bytes(tmp_path / "file", b"\r\n\x00\xff")
        assert (tmp_path / "file").read_bytes() == b"\r\n\x00\xff"

    def test_text_is_utf_8_with_its_own_line_ends(self, tmp_path: Path) -> None:
        write_text(tmp_path / "file", "größe\n")
        assert (tmp_path / "file").read_bytes() == "größe\n".encode()

    def test_json_ends_with_a_line_end_and_keeps_the_order(self, tmp_path: Path) -> None:
        value = {"b": [1, 2.5, None], "a": "größe"}
        write_json(tmp_path / "file", value)
        text = (tmp_path / "file").read_text(encoding="utf-8")
        assert json.loads(text) == value and list(json.loads(text)) == ["b", "a"]
        assert text.endswith("}\n") and "größe" in text

    def test_json_that_cannot_be_written_leaves_the_old_file(self, tmp_path: Path) -> None:
        write_json(tmp_path / "file", 1)
        with pytest.raises(TypeError):
            write_json(tmp_path / "file", {"x": object()})
        assert (tmp_path / "file").read_text() == "1\n"
