import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import Ear, classes, encoded, noise, write
from tinygrow.data.folder import load_image_folder
from tinygrow.data.source import Source
from tinygrow.errors import TinygrowError
from tinygrow.settings.data import ImageFolderSettings

PETS = classes({"train/cat": 6, "train/dog": 4, "test/cat": 2, "test/dog": 3})


def load(base: Path, path: str = "pets", ear: Ear | None = None, **values) -> Source:
    settings = ImageFolderSettings(path=path, **{"size": 8} | values)
    return load_image_folder(settings, base=base, observer=ear or Ear())


def expected(folder: str) -> np.ndarray:
    """Pixels of the pictures of `PETS` below a folder, in order."""
    names = sorted(name for name in PETS if name.startswith(folder))
    pixels = [np.asarray(Image.open(io.BytesIO(PETS[name]))) for name in names]
    return np.stack(pixels).transpose(0, 3, 1, 2)


def test_images_and_labels_in_order(tmp_path):
    write(tmp_path / "pets", PETS)
    ear = Ear()
    source = load(tmp_path, ear=ear)
    assert source.classes == ("cat", "dog")
    assert (source.train.images == expected("train")).all()
    assert (source.test.images == expected("test")).all()
    assert source.train.labels.tolist() == [0] * 6 + [1] * 4
    assert source.test.labels.tolist() == [0] * 2 + [1] * 3
    assert (ear.done, ear.open, ear.lines) == (15, 0, [])


@pytest.mark.parametrize("top", ["", "pets-1.0/"])
def test_archives_give_the_same_as_their_folder(tmp_path, top):
    folder = write(tmp_path / "pets", PETS)
    with tarfile.open(tmp_path / "pets.tar.xz", "w:xz") as tar:
        tar.add(folder, arcname=top or ".")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name, content in PETS.items():
            archive.writestr(top + name, content)
    reference = load(tmp_path)
    for name in ("pets.tar.xz", "pets.zip"):
        source = load(tmp_path, name)
        assert (source.train.images == reference.train.images).all()
        assert (source.test.labels == reference.test.labels).all()
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()[:12]
        assert source.description == f"image folder {name} (sha256 {digest}), PNG"


def test_classes_alone_are_split(tmp_path):
    files = classes({"cat": 10, "dog": 20})
    write(tmp_path / "pets", files)
    source = load(tmp_path, test_fraction=0.3)
    assert np.bincount(source.train.labels).tolist() == [7, 14]
    assert np.bincount(source.test.labels).tolist() == [3, 6]
    images = np.concatenate([source.train.images, source.test.images])
    assert len({one.tobytes() for one in images}) == 30
    other = load(tmp_path, test_fraction=0.3, seed=1)
    assert (other.test.images != source.test.images).any()


def test_parts_are_stratified_and_told(tmp_path):
    write(tmp_path / "pets", classes({"train/a": 8, "train/b": 4, "test/a": 6, "test/b": 6}))
    source = load(tmp_path, max_train_images=6, max_test_images=4)
    assert np.bincount(source.train.labels).tolist() == [4, 2]
    assert np.bincount(source.test.labels).tolist() == [2, 2]
    assert source.description.endswith("PNG, 6 of 12 training images, 4 of 12 test images")


def test_too_small_a_part_is_refused(tmp_path):
    write(tmp_path / "pets", PETS)
    with pytest.raises(TinygrowError, match=r"max_train_images is 3, too few for 2 classes.* 4"):
        load(tmp_path, max_train_images=3)
    with pytest.raises(TinygrowError, match=r"max_test_images is 1, too few for 2 classes.* 2"):
        load(tmp_path, max_test_images=1)


def test_grey_and_size(tmp_path):
    write(tmp_path / "pets", PETS)
    source = load(tmp_path, mode="grey", size=5)
    assert source.train.images.shape == (10, 1, 5, 5)


def test_description_knows_the_content(tmp_path):
    write(tmp_path / "one" / "pets", PETS)
    write(tmp_path / "two" / "pets", dict(reversed(PETS.items())))
    changed = PETS | {"train/cat/00.png": encoded(noise(99))}
    write(tmp_path / "three" / "pets", changed)
    one, two, three = (load(tmp_path / one).description for one in ("one", "two", "three"))
    assert one == two != three
    assert one.startswith("image folder pets (content ") and str(tmp_path) not in one


@pytest.mark.parametrize("path", ["pets", "pets.zip"])
def test_a_damaged_image_is_named_as_the_user_knows_it(tmp_path, path):
    files = PETS | {"train/dog/01.png": PETS["train/dog/01.png"][:60]}
    write(tmp_path / "pets", files)
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    ear = Ear()
    with pytest.raises(TinygrowError, match=rf"^{path}/train/dog/01\.png is damaged"):
        load(tmp_path, path, ear)
    assert ear.open == 0


def test_the_first_damaged_image_is_the_one_that_is_named(tmp_path):
    files = classes({"a": 100, "b": 100})
    write(tmp_path / "pets", files | {"a/90.png": b"", "b/10.png": b""})
    for seed in range(3):
        with pytest.raises(TinygrowError, match=r"^pets/[ab]/\d\d\.png is empty") as one:
            load(tmp_path, seed=seed)
        with pytest.raises(TinygrowError) as two:
            load(tmp_path, seed=seed)
        assert str(one.value) == str(two.value)


def test_missing_path_is_named(tmp_path):
    with pytest.raises(TinygrowError, match="image folder 'gone/pets' does not exist; set path"):
        load(tmp_path, "gone/pets")


def test_a_file_in_two_classes_or_in_both_parts_is_told(tmp_path):
    same = PETS["train/cat/00.png"]
    leak = {"test/cat/00.png": same, "train/dog/03.png": PETS["train/cat/05.png"]}
    write(tmp_path / "pets", PETS | leak)
    ear = Ear()
    load(tmp_path, ear=ear)
    assert [line.split(";")[0] for line in ear.lines] == [
        "warning: 1 files also occur in another class, which cannot both be right",
        "warning: 1 files of the test images are also training images, which flatters the accuracy",
    ]
    assert "the first: pets/train/cat/05.png = pets/train/dog/03.png" in ear.lines[0]


def test_what_is_ignored_is_told(tmp_path):
    write(tmp_path / "pets", PETS | {"train/cat/notes.txt": b"x"})
    ear = Ear()
    load(tmp_path, ear=ear)
    assert ear.lines == ["ignored in pets: 1 .txt files"]


def test_limits_reach_the_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name, content in PETS.items():
            archive.writestr(name, content)
    with pytest.raises(TinygrowError, match="raise max_files"):
        load(tmp_path, "pets.zip", max_files=10)
    with pytest.raises(TinygrowError, match="unpacks to more than 1e-06 GB"):
        load(tmp_path, "pets.zip", max_gigabytes=1e-6)
