from pathlib import Path

import pytest

from tests.data.pictures import write
from tinygrow.data.layout import Layout, find_images
from tinygrow.data.tree import FolderTree
from tinygrow.errors import TinygrowError


def find(root: Path, *names: str, max_files: int = 100) -> Layout:
    """Layout of empty files; a name that ends in a slash is a folder."""
    for name in names:
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
    write(root, {name: b"" for name in names if not name.endswith("/")})
    return find_images(FolderTree(root), name="pets", max_files=max_files)


@pytest.mark.parametrize("top", ["", "pets-main/", "a/b/"])
def test_train_and_test(tmp_path, top):
    names = ["train/dog/2.jpg", "train/cat/1.PNG", "train/dog/1.jpg", "test/dog/9.jpg"]
    found = find(tmp_path, *(top + name for name in names), top + "test/cat/8.webp")
    assert found.classes == ("cat", "dog")
    assert found.train.files == [
        top + name for name in ("train/cat/1.PNG", "train/dog/1.jpg", "train/dog/2.jpg")
    ]
    assert found.train.labels == [0, 1, 1]
    assert found.test is not None
    assert found.test.files == [top + "test/cat/8.webp", top + "test/dog/9.jpg"]
    assert found.test.labels == [0, 1]
    assert found.notes == ()


@pytest.mark.parametrize("top", ["", "pets-main/", "train/"])
def test_classes_alone(tmp_path, top):
    found = find(tmp_path, f"{top}dog/1.jpg", f"{top}cat/1.jpg")
    assert found.classes == ("cat", "dog") and found.test is None
    assert found.train.files == [f"{top}cat/1.jpg", f"{top}dog/1.jpg"]


def test_classes_may_be_called_train_or_test(tmp_path):
    assert find(tmp_path, "train/1.jpg", "plane/1.jpg").classes == ("plane", "train")


def test_what_is_ignored_is_counted(tmp_path):
    found = find(
        tmp_path,
        *("cat/1.jpg", "dog/1.jpg", "dog/Thumbs.db", "cat/a.txt", "cat/b.txt", "README", "top.png"),
        *("cat/more/1.jpg", ".hidden", "cat/.DS_Store", "__MACOSX/cat/1.jpg"),
    )
    assert found.train.files == ["cat/1.jpg", "dog/1.jpg"]
    assert found.notes == (
        "ignored in pets: 1 .db files, 2 .txt files, 1 files without an ending,"
        " 1 folders within class folders, 1 images outside of class folders",
    )


def test_other_folders_and_absent_test_classes_are_told(tmp_path):
    found = find(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "val/a/1.png")
    assert "ignored beside train and test: val" in found.notes[0]
    assert found.notes[1] == "warning: pets has no test images of b"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "pets has no class folders; expected"),
        (["1.png", "2.png"], "pets has no class folders"),
        (["train/", "test/"], "pets/train has no class folders"),
        (["train/a/1.png", "train/b/1.png", "test/"], "pets/test has no class folders"),
        (["cat/1.png"], "a single class, 'cat'"),
        (["train/cat/1.png", "test/cat/1.png"], "a single class, 'cat'"),
        (["cat/1.png", "dog/"], "class folder 'dog' has no images at all"),
        (
            ["cat/1.png", "dog/1.heic"],
            "'dog' has no images but 1.heic; readable: .*png",
        ),
        (["cat/1.png", "dog/.1.png"], "class folder 'dog' has no images at all"),
        (["Train/a/1.png", "Test/a/1.png"], "'Test' has no images but folders .a.; expected"),
        (["train/a/1.png", "val/a/1.png"], "pets has train/ but no test/ .folders: train, val."),
        (["test/a/1.png", "val/a/1.png"], "pets has test/ but no train/"),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"],
            "test images of c, which train/ lacks",
        ),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/"],
            "class folder 'test/b' has no images at all",
        ),
    ],
)
def test_what_fits_neither_layout_is_refused(tmp_path, names, message):
    with pytest.raises(TinygrowError, match=message):
        find(tmp_path, *names)


def test_more_files_than_allowed_are_refused(tmp_path):
    names = [f"{one}/{number}.png" for one in "ab" for number in range(5)]
    assert len(find(tmp_path, *names, max_files=10).train.files) == 10
    with pytest.raises(TinygrowError, match="holds more than 9 files; raise max_files"):
        find(tmp_path, max_files=9)


def test_a_folder_that_cannot_be_listed_is_one_error(tmp_path):
    with pytest.raises(TinygrowError, match="cannot read pets: No such file"):
        find_images(FolderTree(tmp_path / "gone"), name="pets", max_files=9)
