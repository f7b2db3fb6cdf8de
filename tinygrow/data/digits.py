"""The handwritten digits that scikit-learn ships: 1,797 grey images of 8 x 8 pixels."""

import numpy as np
from PIL import Image

from tinygrow.data.images import to_uint8
from tinygrow.data.source import Labelled, Source
from tinygrow.data.split import stratified_split
from tinygrow.settings.data import DigitsSettings

_FULL_SCALE = 16  # the original pixels count the set points of a 4 x 4 block


def load_digits(settings: DigitsSettings) -> Source:
    """Scale the digits to 0..255, resize them (bilinear) and take out a stratified test set."""
    from sklearn.datasets import load_digits as load_original

    pixels, labels = load_original(return_X_y=True)
    grey = np.rint(pixels.reshape(-1, 8, 8) * (255 / _FULL_SCALE)).astype(np.uint8)
    images = np.stack(
        [to_uint8(Image.fromarray(one), size=settings.size, channels=1) for one in grey]
    )
    labels = labels.astype(np.int64)
    classes = tuple(str(digit) for digit in range(10))
    train, test = stratified_split(
        labels, classes, settings.test_fraction, seed=settings.seed, purpose="test"
    )
    return Source(
        description=f"digits of scikit-learn, 8x8 grey resized to {settings.size}x{settings.size}",
        classes=classes,
        train=Labelled(images[train], labels[train]),
        test=Labelled(images[test], labels[test]),
    )
