"""A few test images with what the product says of them."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tinygrow.errors import TinygrowError

_LOOKED_AT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One test image and its prediction.

    Attributes:
        index: of the image in the test split.
        label: its class.
        predicted: the class with the largest logit.
        confidence: softmax of that logit, in percent; not calibrated.
        png: the image at its own size.
    """

    index: int
    label: str
    predicted: str
    confidence: float
    png: bytes

    @property
    def file_name(self) -> str:
        """`<index>-<class>.png`, whatever characters the class has."""
        return f"{self.index}-{re.sub(r'[^A-Za-z0-9._-]+', '_', self.label) or '_'}.png"

    @property
    def right(self) -> bool:
        """Whether the prediction is right."""
        return self.label == self.predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What the page shows and what lies beside it.

    Attributes:
        of_classes: one image of each class that the test split has.
        mistakes: images that the product names wrongly, among those looked at.
        looked_at: test images on which mistakes were sought.
        wrong: how many of them were wrong.
    """

    of_classes: tuple[Sample, ...]
    mistakes: tuple[Sample, ...]
    looked_at: int
    wrong: int


def choose_samples(
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    predict: Callable[[np.ndarray], np.ndarray],
    most_mistakes: int = 6,
) -> Samples:
    """Take the first test image of each class, and mistakes from an even spread of the split.

    Args:
        images: uint8 (N, C, H, W), the test split.
        labels: int (N,).
        classes: names in the order of the labels.
        predict: from uint8 (n, C, H, W) to logits (n, classes).
        most_mistakes: how many mistakes are kept.

    Raises:
        TinygrowError: the test split is empty.
    """
    if len(images) == 0:
        raise TinygrowError("the test split has 0 images; give the data set some and run download")
    spread = np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).round().astype(int))
    firsts = np.array([np.flatnonzero(labels == c)[0] for c in np.unique(labels)])
    indices = np.union1d(spread, firsts)
    logits = np.concatenate(
        [predict(images[part]) for part in np.array_split(indices, -(-len(indices) // 128))]
    ).astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    made = {
        int(i): Sample(
            index=int(i),
            label=classes[int(labels[i])],
            predicted=classes[int(row.argmax())],
            confidence=100 * float(row.max()),
            png=encode_png(images[i]),
        )
        for i, row in zip(indices, shares, strict=True)
    }
    wrong = [made[int(i)] for i in spread if not made[int(i)].right]
    return Samples(
        of_classes=tuple(made[int(i)] for i in firsts),
        mistakes=tuple(wrong[:most_mistakes]),
        looked_at=len(spread),
        wrong=len(wrong),
    )


def encode_png(image: np.ndarray) -> bytes:
    """Return a uint8 image (1 or 3, H, W) as a PNG file of its own size."""
    pixels = image[0] if image.shape[0] == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", optimize=True)
    return buffer.getvalue()
