"""From a source to the prepared file: validation split, channel statistics, card."""

import math
from pathlib import Path

import numpy as np
import torch

from tinygrow.data.cifar import load_cifar
from tinygrow.data.digits import load_digits
from tinygrow.data.folder import load_image_folder
from tinygrow.data.prepared import DataCard, Split, SplitName, save_prepared
from tinygrow.data.source import Labelled, Source
from tinygrow.data.split import stratified_split
from tinygrow.observer import Observer
from tinygrow.settings.data import (
    Cifar10Settings,
    Cifar100Settings,
    DataSettings,
    DigitsSettings,
    ImageFolderSettings,
)

_SMALLEST_STD = 1 / 255  # one grey level: a constant channel must not divide by zero
_CHUNK = 4096


def prepare(
    name: str, settings: DataSettings, destination: Path, *, base: Path, observer: Observer
) -> DataCard:
    """Load a data set, split it and write it as one file; the same input gives the same bytes.

    Args:
        name: of the data set in `params.yaml`.
        settings: of its source.
        destination: the file to be written, atomically.
        base: folder that paths in the settings are relative to.
        observer: is told of progress.

    Raises:
        TinygrowError: the source is missing, damaged, out of reach or too small to be split, or
            the disk is full; nothing is left half-written.
    """
    source = _load(name, settings, base, observer)
    rest, part = stratified_split(
        source.train.labels,
        source.classes,
        settings.validation_fraction,
        seed=settings.seed,
        purpose="validation",
    )
    labels, images = source.train.labels, source.train.images
    splits: dict[SplitName, Split] = {
        "train": _split(Labelled(images[rest], labels[rest])),
        "validation": _split(Labelled(images[part], labels[part])),
        "test": _split(source.test),
    }
    mean, std = channel_statistics(splits["train"].images.numpy())
    channels, height, width = images.shape[1:]
    card = DataCard(
        name=name,
        source=source.description,
        classes=source.classes,
        shape=(channels, height, width),
        mean=mean,
        std=std,
        counts={which: len(split.labels) for which, split in splits.items()},
    )
    save_prepared(destination, card, splits)
    return card


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in units of full scale (0 to 1).

    Computed in whole numbers from the histogram, so that they are exact and the same everywhere.
    The standard deviation is at least one grey level.

    Args:
        images: uint8 (N, C, H, W), N > 0.
    """
    means, stds = [], []
    for channel in range(images.shape[1]):
        histogram = np.zeros(256, np.int64)
        for start in range(0, len(images), _CHUNK):
            values = images[start : start + _CHUNK, channel]
            histogram += np.bincount(values.ravel(), minlength=256)
        counts = [int(count) for count in histogram]
        total = sum(counts)
        first = sum(value * count for value, count in enumerate(counts))
        second = sum(value * value * count for value, count in enumerate(counts))
        means.append(first / (255 * total))
        stds.append(max(math.sqrt(total * second - first * first) / (255 * total), _SMALLEST_STD))
    return tuple(means), tuple(stds)


def _load(name: str, settings: DataSettings, base: Path, observer: Observer) -> Source:
    match settings:
        case DigitsSettings():
            return load_digits(settings)
        case ImageFolderSettings():
            return load_image_folder(settings, base=base, observer=observer)
        case Cifar10Settings() | Cifar100Settings():
            return load_cifar(settings, name=name, base=base, observer=observer)


def _split(labelled: Labelled) -> Split:
    return Split(torch.from_numpy(labelled.images), torch.from_numpy(labelled.labels))
