import io

import numpy as np
import pytest
from PIL import Image

from tinygrow.errors import TinygrowError
from tinygrow.report.samples import choose_samples, encode_png


def brightest(images: np.ndarray) -> np.ndarray:
    """Name the class by the first pixel: 0, 1 or 2."""
    return 10.0 * np.eye(3)[images[:, 0, 0, 0].astype(int)]


def made(labels: list[int], shown: list[int]) -> tuple[np.ndarray, np.ndarray]:
    images = np.zeros((len(labels), 1, 4, 4), np.uint8)
    images[:, 0, 0, 0] = shown
    return images, np.array(labels)


def test_the_first_image_of_each_class_that_has_one() -> None:
    images, labels = made([2, 0, 2, 0], [2, 0, 2, 0])
    samples = choose_samples(images, labels, ["a", "b", "c"], brightest)
    assert [(s.index, s.label, s.predicted) for s in samples.of_classes] == [
        (1, "a", "a"),
        (0, "c", "c"),
    ]
    assert (samples.looked_at, samples.wrong, samples.mistakes) == (4, 0, ())


def test_mistakes_are_counted_all_and_shown_up_to_a_number() -> None:
    images, labels = made([0] * 10, [1] * 10)
    samples = choose_samples(images, labels, ["a", "b", "c"], brightest, most_mistakes=3)
    assert samples.wrong == 10
    assert [s.index for s in samples.mistakes] == [0, 1, 2]
    assert not samples.mistakes[0].right
    assert samples.mistakes[0].confidence == pytest.approx(100 / (1 + 2 * np.exp(-10)))


def test_a_large_split_is_looked_at_in_an_even_spread() -> None:
    images, labels = made([0] * 3000 + [1], [0] * 3001)
    samples = choose_samples(images, labels, ["a", "b", "c"], brightest)
    assert samples.looked_at == 512
    assert samples.of_classes[1].index == 3000


def test_no_images_is_an_error() -> None:
    images, labels = made([], [])
    with pytest.raises(TinygrowError, match="0 images"):
        choose_samples(images, labels, ["a"], brightest)


def test_file_names_keep_no_separator() -> None:
    images, labels = made([0], [0])
    samples = choose_samples(images, labels, ["../a b<c>", "b", "c"], brightest)
    assert samples.of_classes[0].file_name == "0-.._a_b_c_.png"


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_very_pixels(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), np.uint8)
    read = np.asarray(Image.open(io.BytesIO(encode_png(image))))
    right = image[0] if channels == 1 else image.transpose(1, 2, 0)
    np.testing.assert_array_equal(read, right)
