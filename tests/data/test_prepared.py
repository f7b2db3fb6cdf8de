import pytest
import torch
from safetensors.torch import save_file

from tinygrow.data import prepared
from tinygrow.data.prepared import SPLITS, DataCard, Split, load_card, load_split, save_prepared
from tinygrow.errors import TinygrowError

CARD = DataCard(
    name="toy",
    source="made up",
    classes=("ä", "b"),
    shape=(1, 2, 2),
    mean=(0.1,),
    std=(1 / 3,),
    counts={"train": 3, "validation": 2, "test": 1},
)


def toy():
    return {
        which: Split(
            torch.arange(count * 4, dtype=torch.uint8).reshape(count, 1, 2, 2),
            torch.arange(count) % 2,
        )
        for which, count in CARD.counts.items()
    }


@pytest.fixture
def path(tmp_path):
    save_prepared(tmp_path / "toy.safetensors", CARD, toy())
    return tmp_path / "toy.safetensors"


def test_what_is_saved_is_loaded(path):
    assert load_card(path) == CARD
    for which, split in toy().items():
        loaded = load_split(path, which)
        assert (loaded.images == split.images).all() and (loaded.labels == split.labels).all()


def test_loading_a_split_reads_that_split_alone(path, monkeypatch):
    read = []

    class Spy:
        def __init__(self, *arguments, **options):
            self.file = original(*arguments, **options)

        def __enter__(self):
            self.opened = self.file.__enter__()
            return self

        def __exit__(self, *error):
            self.file.__exit__(*error)

        def metadata(self):
            return self.opened.metadata()

        def get_tensor(self, name):
            read.append(name)
            return self.opened.get_tensor(name)

    original = prepared.safe_open
    monkeypatch.setattr(prepared, "safe_open", Spy)
    load_card(path)
    assert read == []
    load_split(path, "train")
    assert read == ["train_images", "train_labels"]


def test_layout_of_memory_does_not_matter(path, tmp_path):
    other = {
        which: Split(split.images.transpose(2, 3).contiguous().transpose(2, 3), split.labels)
        for which, split in toy().items()
    }
    save_prepared(tmp_path / "other", CARD, {which: other[which] for which in reversed(SPLITS)})
    assert (tmp_path / "other").read_bytes() == path.read_bytes()


def test_missing_file_names_the_stage(tmp_path):
    with pytest.raises(TinygrowError, match="does not exist; run the download stage"):
        load_card(tmp_path / "gone")


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_cut_file_is_told(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(TinygrowError, match=r"is damaged.*run the download stage again"):
        load_split(path, "train")


@pytest.mark.parametrize("metadata", [None, {"tinygrow": '{"format": "tinygrow-images-0"}'}])
def test_another_format_is_told(tmp_path, metadata):
    save_file({"x": torch.zeros(1)}, tmp_path / "x", metadata=metadata)
    with pytest.raises(TinygrowError, match=r"has format .*not 'tinygrow-images-1'"):
        load_card(tmp_path / "x")
