"""Stratified, seeded splits of labels. The same on every platform and NumPy version.

An image's place is decided by a random key of its own: the raw 64-bit stream of PCG64, which NumPy
promises never to change, unlike the distributions drawn from it.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tinygrow.errors import TinygrowError

Purpose = Literal["test", "validation", "max_train_images", "max_test_images"]
_STREAMS: tuple[Purpose, ...] = ("test", "validation", "max_train_images", "max_test_images")


def stratified_split(
    labels: np.ndarray, classes: Sequence[str], fraction: float, *, seed: int, purpose: Purpose
) -> tuple[np.ndarray, np.ndarray]:
    """Split indices in two parts that hold the classes in the same proportions.

    Every class that occurs keeps at least one image on either side.

    Args:
        labels: int (N,), each an index into `classes`.
        classes: their names, for errors.
        fraction: share of the images that goes to the second part, rounded to whole images.
        seed: of the random choice, at least 0.
        purpose: what the second part is for; each purpose has its own random stream.

    Returns:
        The indices of the first and of the second part, int64, ascending.

    Raises:
        TinygrowError: a class has a single image.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if (counts == 1).any():
        raise TinygrowError(
            f"class {classes[int(np.argmax(counts == 1))]!r} has 1 image left, too few to set"
            f" some aside for {purpose}; give every class at least 3, better 20"
        )
    wanted = int(fraction * len(labels) + 0.5)
    quota = _quota(counts, wanted, np.minimum(counts, 1), np.maximum(counts - 1, 0))
    part = _draw(labels, quota, seed, purpose)
    rest = np.setdiff1d(np.arange(len(labels)), part, assume_unique=True)
    return rest, part


def stratified_subset(
    labels: np.ndarray,
    classes: Sequence[str],
    count: int,
    *,
    seed: int,
    purpose: Purpose,
    per_class: int = 1,
) -> np.ndarray:
    """Choose `count` images that hold the classes in the proportions of the whole.

    Args:
        labels: int (N,), each an index into `classes`.
        classes: their names.
        count: how many; with N or more, all are taken.
        seed: of the random choice, at least 0.
        purpose: the setting that asks for it; each purpose has its own random stream.
        per_class: images that every class keeps, as far as it has them.

    Returns:
        The indices of the chosen images, int64, ascending.

    Raises:
        TinygrowError: `count` is too small for that.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    counts = np.bincount(labels, minlength=len(classes))
    low = np.minimum(counts, per_class)
    if count < low.sum():
        raise TinygrowError(
            f"{purpose} is {count}, too few for {len(classes)} classes; it must be 0 (all) or at"
            f" least {low.sum()}"
        )
    return _draw(labels, _quota(counts, count, low, counts), seed, purpose)


def _quota(counts: np.ndarray, total: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Share `total` among classes in proportion to `counts`, by largest remainders.

    Whole numbers throughout, so that ties fall alike everywhere: to the earlier class.
    """
    total = int(np.clip(total, low.sum(), high.sum()))
    everything = max(int(counts.sum()), 1)
    quota = np.clip(counts * total // everything, low, high)
    while (missing := total - int(quota.sum())) != 0:
        lacking = counts * total - quota * everything  # in units of 1 / everything
        if missing > 0:
            best = np.argmax(np.where(quota < high, lacking, np.iinfo(np.int64).min))
            quota[best] += 1
        else:
            best = np.argmin(np.where(quota > low, lacking, np.iinfo(np.int64).max))
            quota[best] -= 1
    return quota


def _draw(labels: np.ndarray, quota: np.ndarray, seed: int, purpose: Purpose) -> np.ndarray:
    sequence = np.random.SeedSequence([seed, _STREAMS.index(purpose)])
    keys = np.random.PCG64(sequence).random_raw(len(labels))
    order = np.lexsort((keys, labels))  # by class, then by key
    first_of_class = np.searchsorted(labels[order], np.arange(len(quota)))
    chosen = [order[a : a + k] for a, k in zip(first_of_class, quota, strict=True)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)
