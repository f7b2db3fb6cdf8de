import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from torchvision.datasets import CIFAR10

from pipeline.cli import cli
from pipeline.closure import ROOT
from pipeline.stages import download
from tests.data.cifar_archive import md5, small_archive
from tests.data.pictures import full_disk
from tests.data.server import Answer, serving
from tests.pipeline.tiny import read_shipped, write_params
from tinygrow.data import fetch
from tinygrow.data.prepared import load_card, load_split
from tinygrow.errors import SettingError
from tinygrow.observer import Observer


class Listener(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_prepared_file_lies_where_dvc_looks_and_is_told_of(folder: Path) -> None:
    listener = Listener()
    download.run("digits", observer=listener)
    card = load_card(folder / "data" / "digits.safetensors")
    assert card.name == "digits"
    assert sum(card.counts.values()) == 1797
    assert f"{card.counts['test']} test images of 1x" in listener.lines[-1]
    assert "in 10 classes" in listener.lines[-1]


def test_an_unknown_data_set_is_named_with_the_nearest(folder: Path) -> None:
    with pytest.raises(SettingError, match=r"no data set 'digit' .* did you mean digits\?"):
        download.run("digit", observer=Observer())
    assert not (folder / "data").exists()


class TestCifar:
    """The command on a small archive that torchvision takes for the official one."""

    @pytest.fixture
    def packed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
        for name in ("temporary", "work"):
            (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / "work")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        monkeypatch.setenv("TINYGROW_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(fetch, "_FIRST_WAIT", 0.001)
        archive = small_archive(CIFAR10)
        packed = archive.packed()
        archive.make_official(monkeypatch, packed)
        return packed

    def download(self, **values: Any) -> Result:
        tree = read_shipped()
        tree["data"]["cifar10"] |= {"validation_fraction": 0.2} | values
        write_params(Path(), tree)
        return CliRunner().invoke(cli, ["download", "cifar10"])

    def refused(self, **values: Any) -> str:
        """Return the last line of a failure that leaves nothing but what can be gone on from."""
        result = self.download(**values)
        assert result.exit_code == 1
        assert [path.name for path in Path().iterdir()] == ["params.yaml"]
        assert list(Path("../temporary").iterdir()) == []
        assert not Path("../cache/cifar-10-python.tar.gz").exists()
        *notes, error = result.stderr.splitlines()
        assert error.startswith("Error: ")
        assert all("trying again in" in line for line in notes), result.stderr
        return error

    def test_good(self, packed: bytes) -> None:
        with serving(packed) as server:
            result = self.download(mirror=server.url)
            assert result.exit_code == 0, result.output
            assert "80 train, 20 validation, 20 test images of 3x32x32 in 10" in result.stderr
        again = self.download(mirror="http://127.0.0.1:1/gone")
        assert again.exit_code == 0, "the archive is kept"
        assert load_card(Path("data/cifar10.safetensors")).source.startswith("CIFAR-10, official")

    def test_a_cut_connection_is_gone_on_from(self, packed: bytes) -> None:
        with serving(packed, Answer(cut=1000)) as server:
            result = self.download(mirror=server.url)
        assert result.exit_code == 0
        assert server.ranges == [None, "bytes=1000-"]
        told, done = result.stderr.splitlines()
        assert f"{server.url}: the connection was cut after 1,000 of" in told
        assert done.startswith("data/cifar10.safetensors: ")

    def test_a_connection_cut_for_good(self, packed: bytes) -> None:
        with serving(packed, *[Answer(cut=1000, ranges=False)] * 2) as server:
            error = self.refused(mirror=server.url, attempts=2)
        assert "the connection was cut after 1,000 of" in error
        assert "set data.cifar10.mirror to another address or to a local copy of" in error
        assert Path("../cache/cifar-10-python.tar.gz.part").read_bytes() == packed[:1000]

    def test_a_wrong_checksum(self, packed: bytes) -> None:
        with serving(packed[::-1]) as server:
            error = self.refused(mirror=server.url)
        assert f"with md5 {md5(packed[::-1])}, not {md5(packed)}, and they are deleted" in error

    def test_a_mirror_with_a_wrong_checksum(self, packed: bytes, tmp_path: Path) -> None:
        (tmp_path / "copy").write_bytes(packed[:-1])
        error = self.refused(mirror="../copy")
        assert "data.cifar10.mirror is '../copy', which has md5" in error
        assert (tmp_path / "copy").exists()

    def test_a_slow_server(self, packed: bytes) -> None:
        with serving(packed, *[Answer(stall=1000)] * 2) as server:
            error = self.refused(mirror=server.url, attempts=2, timeout_seconds=0.3)
        assert "silence for 0.3 s (attempt 2 of 2)" in error

    def test_no_server(self, packed: bytes) -> None:
        with serving(b"") as server:
            pass
        error = self.refused(mirror=server.url, attempts=2)
        assert f"cannot download {server.url}: Connection refused (attempt 2 of 2); set" in error
        assert error.endswith("or take images of your own (source: image_folder)")

    def test_a_full_disk(self, packed: bytes) -> None:
        with serving(packed) as server:
            with full_disk(20_000):
                error = self.refused(mirror=server.url)
            assert error.endswith(
                "free disk space, mend the permissions, or set TINYGROW_CACHE to another folder"
            )
            assert self.download(mirror=server.url).exit_code == 0
        assert server.ranges == [None, "bytes=20000-"]
        assert len(load_split(Path("data/cifar10.safetensors"), "test").labels) == 20

    def test_a_mistake_in_the_settings_asks_no_server(self, packed: bytes) -> None:
        error = self.refused(mirror="ftp://host/x")
        assert "data.cifar10.mirror is 'ftp://host/x'; it must be an address such as" in error
