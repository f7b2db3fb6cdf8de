import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from tests.data.cifar_archive import Archive, Trap, md5, small_archive
from tests.data.pictures import WRITE_LIMIT, Ear, full_disk
from tests.data.server import Answer, serving
from tinygrow.data import fetch
from tinygrow.data.cifar import load_cifar
from tinygrow.data.prepare import prepare
from tinygrow.data.prepared import load_split
from tinygrow.data.source import Source
from tinygrow.errors import TinygrowError
from tinygrow.settings.data import Cifar10Settings, Cifar100Settings

SETTINGS = {CIFAR10: Cifar10Settings, CIFAR100: Cifar100Settings}
both = pytest.mark.parametrize("official", [CIFAR10, CIFAR100])


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache and a folder for temporary files of its own, no proxy, short waits."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TINYGROW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "_FIRST_WAIT", 0.001)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    return tmp_path / "temporary"


def load(base: Path, official: type[CIFAR10] = CIFAR10, ear: Ear | None = None, **v: Any) -> Source:
    settings = SETTINGS[official](**v)
    return load_cifar(settings, name="mine", base=base, observer=ear or Ear())


def refused(base: Path, official: type[CIFAR10] = CIFAR10, **values: Any) -> str:
    ear = Ear()
    with pytest.raises(TinygrowError) as caught:
        load(base, official, ear, **values)
    assert "\n" not in str(caught.value)
    assert ear.open == 0
    assert list((base / "temporary").iterdir()) == []
    return str(caught.value)


def check(source: Source, archive: Archive) -> None:
    """Compare all images and labels with those that the archive was made of."""
    test = archive.official.test_list[0][0]
    train = [name for name, _ in archive.official.train_list]
    for found, names in ((source.train, train), (source.test, [test])):
        np.testing.assert_array_equal(
            found.images, np.concatenate([archive.images[n] for n in names])
        )
        np.testing.assert_array_equal(
            found.labels, np.concatenate([archive.labels[n] for n in names])
        )
        assert found.images.dtype == np.uint8 and found.labels.dtype == np.int64
        assert found.images.flags.c_contiguous
    count = {CIFAR10: 10, CIFAR100: 100}[archive.official]
    assert source.classes == tuple(f"class {number}" for number in range(count))


def test_torchvision_knows_the_sums_that_the_authors_publish() -> None:
    assert CIFAR10.tgz_md5 == "c58f30108f718f92721af3b95e74349a"
    assert CIFAR100.tgz_md5 == "eb9058c3a382ffc7106e4002c42a8d85"
    for official in (CIFAR10, CIFAR100):
        assert official.url.startswith("https://") and official.url.endswith(official.filename)


@both
def test_the_archive_comes_from_a_server_once(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, official: type[CIFAR10]
) -> None:
    archive = small_archive(official)
    packed = archive.packed()
    archive.make_official(monkeypatch, packed)
    with serving(packed) as server:
        # The official address, as if it were here.
        monkeypatch.setattr(official, "url", server.url)
        for _ in range(2):
            check(load(tmp_path, official), archive)
    assert len(server.asked) == 1
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        official.filename,
        f"{official.filename}.lock",
    ]
    assert list(temporary.iterdir()) == []


@both
@pytest.mark.parametrize("form", ["relative", "absolute", "file address", "address"])
def test_a_mirror_is_a_file_or_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official: type[CIFAR10], form: str
) -> None:
    archive = small_archive(official)
    packed = archive.packed()
    archive.make_official(monkeypatch, packed)
    monkeypatch.setattr(official, "url", "http://127.0.0.1:1/not-asked")
    path = tmp_path / "in box" / "my copy.tar.gz"
    path.parent.mkdir()
    path.write_bytes(packed)
    ear = Ear()
    with serving(packed) as server:
        mirrors = {
            "relative": "in box/my copy.tar.gz",
            "absolute": str(path),
            "file address": path.as_uri().replace("file://", "FILE://localhost"),
            "address": server.url.replace("http", "HTTP"),
        }
        check(load(tmp_path, official, ear, mirror=mirrors[form]), archive)
    assert (tmp_path / "cache").exists() == (form == "address")
    assert ear.open == 0 and ear.done > 0


def test_every_way_gives_the_same_prepared_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = small_archive(CIFAR10)
    packed = archive.packed()
    archive.make_official(monkeypatch, packed)
    (tmp_path / "copy").write_bytes(packed)
    contents = set()
    with serving(packed) as server:
        for number, mirror in enumerate([server.url, "copy"]):
            out = tmp_path / f"{number}.safetensors"
            settings = Cifar10Settings(mirror=mirror, validation_fraction=0.2)
            card = prepare("mine", settings, out, base=tmp_path, observer=Ear())
            contents.add(out.read_bytes())
    assert len(contents) == 1
    assert card.counts == {"train": 80, "validation": 20, "test": 20}
    assert card.shape == (3, settings.size, settings.size)
    assert card.source == f"CIFAR-10, official archive (md5 {md5(packed)[:12]}), 32x32 color"
    assert (load_split(out, "test").images.numpy() == archive.images["test_batch"]).all()


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Archive]:
    """Return what puts an archive into the file `copy`, sums and all, and hands it back."""

    def put(official: type[CIFAR10] = CIFAR10, more: dict[str, bytes] | None = None) -> Archive:
        archive = small_archive(official)
        packed = archive.packed(more)
        archive.make_official(monkeypatch, packed)
        (tmp_path / "copy").write_bytes(packed)
        return archive

    return put


@both
def test_parts_hold_all_classes_alike(
    tmp_path: Path, local: Callable[..., Archive], official: type[CIFAR10]
) -> None:
    archive = local(official)
    count = {CIFAR10: 10, CIFAR100: 100}[official]
    values = {"mirror": "copy", "max_train_images": 2 * count, "max_test_images": count}
    source, other = (load(tmp_path, official, seed=seed, **values) for seed in (0, 1))
    assert np.bincount(source.train.labels).tolist() == [2] * count
    assert np.bincount(source.test.labels).tolist() == [1] * count
    assert (source.train.images != other.train.images).any()
    all_, found = (
        len(load(tmp_path, official, mirror="copy").train.labels),
        len(source.train.labels),
    )
    assert f"color, {found:,} of {all_:,} training images" in source.description
    where = {
        image.tobytes(): n
        for name in archive.images
        for n, image in zip(archive.labels[name], archive.images[name], strict=True)
    }
    for image, label in zip(source.train.images, source.train.labels, strict=True):
        assert where[image.tobytes()] == label


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"max_train_images": 19}, "max_train_images is 19, too few for 10 classes"),
        ({"max_test_images": 9}, "max_test_images is 9, too few for 10 classes"),
    ],
)
def test_parts_too_small_are_refused(
    tmp_path: Path, local: Callable[..., Archive], values: dict[str, int], says: str
) -> None:
    local()
    assert says in refused(tmp_path, mirror="copy", **values)


class TestNothingElseIsUnpickled:
    """The trap shuts if a byte of it is unpickled."""

    @pytest.fixture
    def shut(self, tmp_path: Path) -> Path:
        return tmp_path / "shut"

    def test_the_trap_works(self, shut: Path) -> None:
        pickle.loads(pickle.dumps(Trap(shut))).close()
        assert shut.exists()

    @both
    @pytest.mark.parametrize("form", ["file", "address", "cache"])
    def test_of_an_archive_with_another_sum(
        self,
        tmp_path: Path,
        shut: Path,
        monkeypatch: pytest.MonkeyPatch,
        official: type[CIFAR10],
        form: str,
    ) -> None:
        archive = small_archive(official)
        right = archive.packed()
        archive.make_official(monkeypatch, right)
        for name in archive.files:
            archive.files[name] = pickle.dumps(Trap(shut))
        wrong = archive.packed()
        sums = f"md5 {md5(wrong)}, not"
        with serving(wrong) as server:
            if form == "file":
                (tmp_path / "copy").write_bytes(wrong)
                message = refused(tmp_path, official, mirror="copy")
            elif form == "address":
                message = refused(tmp_path, official, mirror=server.url)
            else:
                (tmp_path / "cache").mkdir()
                (tmp_path / "cache" / official.filename).write_bytes(wrong)
                message = refused(tmp_path, official, mirror=server.url)
        assert sums in message and md5(right) in message
        assert not shut.exists()
        if form != "file":
            left = [path.name for path in (tmp_path / "cache").iterdir()]
            assert left == [f"{official.filename}.lock"]

    @both
    @pytest.mark.parametrize("which", ["train", "test", "meta"])
    def test_of_a_file_with_another_sum_in_an_archive_with_the_right_one(
        self,
        tmp_path: Path,
        shut: Path,
        monkeypatch: pytest.MonkeyPatch,
        official: type[CIFAR10],
        which: str,
    ) -> None:
        archive = small_archive(official)
        archive.make_official(monkeypatch, b"")
        name = {
            "train": official.train_list[-1][0],
            "test": official.test_list[0][0],
            "meta": official.meta["filename"],
        }[which]
        archive.files[name] = pickle.dumps(Trap(shut))
        packed = archive.packed()
        monkeypatch.setattr(official, "tgz_md5", md5(packed))
        (tmp_path / "copy").write_bytes(packed)
        message = refused(tmp_path, official, mirror="copy")
        assert "a file in" in message and "has another checksum than torchvision knows" in message
        assert not shut.exists()

    def test_members_of_other_names_are_not_even_unpacked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Callable[..., Archive]
    ) -> None:
        outside = {"../outside": b"x", "/outside": b"x", "cifar-10-batches-py/../../outside": b"x"}
        archive = local(more=outside)
        seen: list[str] = []

        class Watching(Ear):
            def end(self) -> None:
                super().end()
                seen.extend(path.name for path in (tmp_path / "temporary").rglob("*"))

        check(load(tmp_path, ear=Watching(), mirror="copy"), archive)
        kept = {*archive.files, "cifar-10-batches-py"} - {"readme.html"}
        assert kept == {name for name in seen if not name.startswith("tinygrow-")}
        assert not (tmp_path / "outside").exists()


class TestNoArchive:
    def test_without_network_the_remedies_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(b"") as server:
            gone = server.url
        monkeypatch.setattr(CIFAR10, "url", gone)
        assert refused(tmp_path, attempts=2) == (
            f"cannot download {gone}: Connection refused (attempt 2 of 2); set data.mine.mirror to"
            " another address or to a local copy of cifar-10-python.tar.gz (md5"
            " c58f30108f718f92721af3b95e74349a), set http_proxy and https_proxy where only a proxy"
            " leads out, or take images of your own (source: image_folder)"
        )

    def test_the_settings_decide_on_patience(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(b"x", *[Answer(stall=0)] * 3) as server:
            monkeypatch.setattr(CIFAR10, "url", server.url)
            message = refused(tmp_path, attempts=3, timeout_seconds=0.2)
        assert "silence for 0.2 s (attempt 3 of 3)" in message
        assert len(server.asked) == 3

    @pytest.mark.parametrize(
        ("mirror", "says"),
        [
            ("gone.tar.gz", "No such file or directory"),
            ("file:///nowhere/gone.tar.gz", "No such file or directory"),
            ("temporary", "Is a directory"),
        ],
    )
    def test_a_mirror_that_is_no_file_is_named(
        self, tmp_path: Path, mirror: str, says: str
    ) -> None:
        assert refused(tmp_path, mirror=mirror) == (
            f"data.mine.mirror is {mirror!r}: {says}; set it to the address or the path, relative"
            " to params.yaml, of cifar-10-python.tar.gz (md5 c58f30108f718f92721af3b95e74349a)"
        )


class TestDisk:
    def test_full_while_unpacking(self, tmp_path: Path, local: Callable[..., Archive]) -> None:
        local()
        with full_disk(WRITE_LIMIT):
            message = refused(tmp_path, mirror="copy")
        assert message == (
            f"cannot unpack {tmp_path / 'copy'}: File too large; free disk space, or set TMPDIR to"
            " a folder with more"
        )

    def test_full_while_downloading(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = small_archive(CIFAR10)
        packed = archive.packed()
        archive.make_official(monkeypatch, packed)
        with serving(packed) as server:
            with full_disk(WRITE_LIMIT):
                message = refused(tmp_path, mirror=server.url)
            assert "cifar-10-python.tar.gz.part: File too large (0.0 MB are kept" in message
            check(load(tmp_path, mirror=server.url), archive)
        assert server.ranges == [None, f"bytes={WRITE_LIMIT}-"]

    def test_no_folder_for_temporary_files(
        self, tmp_path: Path, temporary: Path, local: Callable[..., Archive]
    ) -> None:
        local()
        temporary.rmdir()
        with pytest.raises(TinygrowError, match=r"cannot unpack .*: No such file .* set TMPDIR to"):
            load(tmp_path, mirror="copy")
