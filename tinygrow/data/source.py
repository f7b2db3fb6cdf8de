"""What every source of images hands over to be prepared."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images with their labels.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set before its validation images are taken out of the training images.

    Attributes:
        description: one line: where the images come from and in which form; no folder names.
        classes: names, in the order of the labels.
        train: all training images.
        test: the test images.
    """

    description: str
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
