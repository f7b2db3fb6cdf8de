import pytest

from tests.data.pictures import write
from tinygrow.data.tree import FolderTree, join
from tinygrow.errors import TinygrowError


def test_a_folder_is_listed_by_name_without_hidden_entries(tmp_path):
    names = ["b/1.png", "a/1.png", ".git/1.png", "__MACOSX/1.png", "z.png", "c.png", ".DS_Store"]
    tree = FolderTree(write(tmp_path, dict.fromkeys(names, b"x")))
    assert tree.entries("").folders == ("a", "b")
    assert tree.entries("").files == ("c.png", "z.png")
    assert tree.entries("a").files == ("1.png",)


def test_reading_calls_files_by_the_name_given(tmp_path):
    tree = FolderTree(write(tmp_path, {"a/1.png": b"x"}))
    assert tree.read("a/1.png", name="pets/a/1.png") == b"x"
    with pytest.raises(TinygrowError, match=r"^pets/a/2\.png does not exist"):
        tree.read("a/2.png", name="pets/a/2.png")


def test_join():
    assert join("", "a") == "a"
    assert join("a/b", "c") == "a/b/c"
