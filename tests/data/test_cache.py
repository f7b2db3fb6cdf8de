import hashlib
import os
import threading
from pathlib import Path

import pytest

from tests.data.pictures import Ear
from tests.data.server import PATIENCE
from tinygrow.data.cache import cache_folder, locked, md5_of
from tinygrow.errors import TinygrowError


@pytest.mark.parametrize(
    ("own", "shared", "folder"),
    [
        ("/mine", "/shared", "/mine"),
        ("/mine", None, "/mine"),
        (None, "/shared", "/shared/tinygrow"),
        ("", "/shared", "/shared/tinygrow"),
        (None, None, "/srv/me/.cache/tinygrow"),
        (None, "", "/srv/me/.cache/tinygrow"),
        (None, "relative", "/srv/me/.cache/tinygrow"),
    ],
)
def test_the_folder_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, own: str | None, shared: str | None, folder: str
) -> None:
    monkeypatch.setenv("HOME", "/srv/me")
    for name, value in (("TINYGROW_CACHE", own), ("XDG_CACHE_HOME", shared)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_a_relative_folder_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYGROW_CACHE", "kept")
    assert cache_folder() == tmp_path / "kept"


def test_a_user_without_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TINYGROW_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(TinygrowError, match="set TINYGROW_CACHE to a folder"):
        cache_folder()


def test_the_md5_is_that_of_the_content(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    assert md5_of(tmp_path / "file") == hashlib.md5(content).hexdigest()


def test_one_at_a_time_and_the_other_says_that_it_waits(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    class Waiter(Ear):
        def say(self, line: str) -> None:
            super().say(line)
            waiting.set()

    waiter, path = Waiter(), tmp_path / "deep" / "file"

    def second() -> None:
        with locked(path, waiter):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(path, Ear()):
        thread.start()
        assert waiting.wait(PATIENCE)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert waiter.lines == [f"another process is making {path}; waiting for it"]


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    ear = Ear()
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "file", ear):
        raise KeyboardInterrupt
    with locked(tmp_path / "file", ear):
        assert ear.lines == []


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    message = r"cannot write .*file\.lock: .*; free disk space, .* or set TINYGROW_CACHE to another"
    with pytest.raises(TinygrowError, match=message), locked(tmp_path / "kept" / "file", Ear()):
        pass


def test_a_file_system_without_locks_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with (
        pytest.raises(TinygrowError, match=r"No locks available; .*TINYGROW_CACHE"),
        locked(tmp_path / "file", Ear()),
    ):
        pass
