import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from tests.data.pictures import Ear, classes, encoded, write
from tinygrow.data.prepare import channel_statistics, prepare
from tinygrow.data.prepared import load_card, load_split
from tinygrow.errors import TinygrowError
from tinygrow.settings.data import DigitsSettings, ImageFolderSettings


def prepare_digits(path, **values):
    settings = DigitsSettings(**{"size": 8} | values)
    return prepare("digits", settings, path, base=path.parent, observer=Ear())


def test_digits_from_end_to_end(tmp_path):
    path = tmp_path / "data" / "digits.safetensors"
    card = prepare_digits(path, test_fraction=0.2, validation_fraction=0.1)
    assert card == load_card(path)
    assert card.name == "digits" and card.shape == (1, 8, 8)
    assert card.counts == {"train": 1294, "validation": 144, "test": 359}
    splits = [load_split(path, which) for which in ("train", "validation", "test")]
    for split, count in zip(splits, card.counts.values(), strict=True):
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert split.images.shape == (count, 1, 8, 8) and split.labels.shape == (count,)
        assert set(split.labels.tolist()) == set(range(10))
    train = splits[0].images.double() / 255
    assert card.mean[0] == pytest.approx(train.mean().item(), abs=1e-12)
    assert card.std[0] == pytest.approx(train.std(correction=0).item(), abs=1e-12)


def test_validation_images_come_out_of_the_training_images(tmp_path):
    base = write(tmp_path, classes({"pets/train/a": 9, "pets/train/b": 9, "pets/test/a": 2}))
    settings = ImageFolderSettings(path="pets", size=8, validation_fraction=0.2)
    destination = tmp_path / "pets.safetensors"
    card = prepare("pets", settings, destination, base=base, observer=Ear())
    assert card.counts == {"train": 14, "validation": 4, "test": 2}
    images = {
        which: {one.numpy().tobytes() for one in load_split(destination, which).images}
        for which in ("train", "validation", "test")
    }
    assert not images["train"] & images["validation"]
    assert not (images["train"] | images["validation"]) & images["test"]
    assert [len(found) for found in images.values()] == [14, 4, 2]


def test_same_input_gives_the_same_bytes(tmp_path):
    files = classes({"pets/a": 9, "pets/b": 150})
    contents = set()
    for name, order in (("one", files), ("two", dict(reversed(files.items())))):
        base = write(tmp_path / name, order)
        for run in range(2):
            path = base / f"{run}.safetensors"
            settings = ImageFolderSettings(path="pets", size=6)
            prepare("pets", settings, path, base=base, observer=Ear())
            contents.add(path.read_bytes())
    assert len(contents) == 1
    assert str(tmp_path).encode() not in contents.pop()


def test_seed_changes_the_split(tmp_path):
    prepare_digits(tmp_path / "one", seed=1)
    prepare_digits(tmp_path / "two", seed=2)
    one, two = (load_split(tmp_path / name, "validation").images for name in ("one", "two"))
    assert (one != two).any()


def test_full_disk_leaves_nothing(tmp_path, full_disk):
    with pytest.raises(TinygrowError, match=r"cannot write .*digits\.safetensors.*free disk space"):
        prepare_digits(tmp_path / "digits.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_the_file_of_before(tmp_path, full_disk):
    path = tmp_path / "digits.safetensors"
    path.write_bytes(b"of before")
    with pytest.raises(TinygrowError, match="cannot write"):
        prepare_digits(path)
    assert path.read_bytes() == b"of before" and list(tmp_path.iterdir()) == [path]


def test_a_failed_source_writes_nothing(tmp_path):
    settings = ImageFolderSettings(path="gone")
    with pytest.raises(TinygrowError, match="does not exist"):
        prepare("pets", settings, tmp_path / "out" / "x", base=tmp_path, observer=Ear())
    assert list(tmp_path.iterdir()) == []


def test_classes_too_small_for_three_parts_are_refused(tmp_path):
    base = write(tmp_path, classes({"pets/a": 9, "pets/b": 2}))
    settings = ImageFolderSettings(path="pets", size=8)
    with pytest.raises(TinygrowError, match=r"class 'b' has 1 image left.*validation"):
        prepare("pets", settings, tmp_path / "x", base=base, observer=Ear())


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5)), st.booleans())
def test_statistics_agree_with_numpy(images, constant):
    if constant:
        images[:, 0] = 77
    mean, std = channel_statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(std, np.maximum(scaled.std((0, 2, 3)), 1 / 255), atol=1e-12)


def test_a_constant_channel_has_a_usable_deviation(tmp_path):
    red = {}
    for number in range(12):
        image = Image.new("RGB", (4, 4), (10 * number, 0, 255))
        red[f"pets/{'ab'[number % 2]}/{number}.png"] = encoded(image)
    base = write(tmp_path, red)
    settings = ImageFolderSettings(path="pets", size=4)
    card = prepare("pets", settings, tmp_path / "x", base=base, observer=Ear())
    assert card.mean[1:] == (0.0, 1.0)
    assert card.std[1:] == (1 / 255, 1 / 255) and card.std[0] > 0.05
