import numpy as np
import pytest
from sklearn.datasets import load_digits as load_original

from tinygrow.data.digits import load_digits
from tinygrow.settings.data import DigitsSettings


def test_counts_shapes_and_stratification():
    source = load_digits(DigitsSettings(size=16, test_fraction=0.2))
    assert source.classes == tuple("0123456789")
    assert source.train.images.shape == (1438, 1, 16, 16)
    assert source.test.images.shape == (359, 1, 16, 16)
    assert source.train.images.dtype == np.uint8 and source.train.labels.dtype == np.int64
    whole = np.bincount(load_original().target)
    part = np.bincount(source.test.labels)
    assert (part + np.bincount(source.train.labels) == whole).all()
    assert (abs(part - whole * 359 / 1797) < 1).all()


def test_pixels_are_scaled_to_full_range():
    source = load_digits(DigitsSettings(size=8))
    original = load_original()
    both = np.concatenate([source.train.images, source.test.images])
    labels = np.concatenate([source.train.labels, source.test.labels])
    expected = np.rint(original.images * 255 / 16).astype(np.uint8)
    ours = sorted((int(label), one.tobytes()) for label, one in zip(labels, both, strict=True))
    theirs = sorted(
        (int(label), one.tobytes()) for label, one in zip(original.target, expected, strict=True)
    )
    assert ours == theirs
    assert both.max() == 255


def test_seed_decides():
    first, again, other = (load_digits(DigitsSettings(size=8, seed=s)) for s in (0, 0, 1))
    assert (first.test.images == again.test.images).all()
    assert (first.test.images != other.test.images).any()


@pytest.mark.parametrize("size", [1, 8, 32])
def test_description_names_form_and_size(size):
    source = load_digits(DigitsSettings(size=size))
    assert source.description == (f"digits of scikit-learn, 8x8 grey resized to {size}x{size}")
