"""Where images come from and how they are prepared."""

from dataclasses import dataclass
from typing import Literal

from tinygrow.settings.check import MAX_SEED, MAX_SIDE, at_least, between, one_of, require


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsSettings:
    """The 1,797 handwritten digits (8x8, grey) that scikit-learn ships.

    Attributes:
        size: side, in pixels, to which images are resized.
        test_fraction: share of the images that becomes the test set.
        validation_fraction: share of the remaining training images kept for decisions.
        seed: of both splits.
    """

    size: int = 16
    test_fraction: float = 0.2
    validation_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        between("size", self.size, 1, MAX_SIDE)
        between("seed", self.seed, 0, MAX_SEED)
        _check_fractions(self.test_fraction, self.validation_fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolderSettings:
    """The user's own images: a folder or an archive (tar, tar.gz, tar.xz, zip).

    Either `train/<class>/*` and `test/<class>/*`, or `<class>/*`, of which a share becomes the
    test set.

    Attributes:
        path: folder or archive, relative to the pipeline's folder.
        size: side, in pixels, to which images are resized.
        mode: `color` (3 channels) or `grey` (1 channel).
        test_fraction: share that becomes the test set where the folder has none of its own.
        validation_fraction: share of the training images kept for decisions.
        max_train_images: a stratified random part of the training images (before the validation
            images are taken out); 0: all.
        max_test_images: likewise for the test images.
        seed: of the splits and of the part.
        max_files: an archive or folder with more files is refused.
        max_gigabytes: an archive that unpacks to more is refused.
    """

    path: str
    size: int = 32
    mode: Literal["color", "grey"] = "color"
    test_fraction: float = 0.2
    validation_fraction: float = 0.1
    max_train_images: int = 0
    max_test_images: int = 0
    seed: int = 0
    max_files: int = 2_000_000
    max_gigabytes: float = 50.0

    def __post_init__(self) -> None:
        require(bool(self.path), "path", self.path, "it must name a folder or an archive")
        between("size", self.size, 1, MAX_SIDE)
        one_of("mode", self.mode, ("color", "grey"))
        _check_fractions(self.test_fraction, self.validation_fraction)
        at_least("max_train_images", self.max_train_images, 0)
        at_least("max_test_images", self.max_test_images, 0)
        at_least("max_files", self.max_files, 1)
        between("seed", self.seed, 0, MAX_SEED)
        require(self.max_gigabytes > 0, "max_gigabytes", self.max_gigabytes, "it must be above 0")


DataSettings = DigitsSettings | ImageFolderSettings


def _check_fractions(test: float, validation: float) -> None:
    for name, value in (("test_fraction", test), ("validation_fraction", validation)):
        require(0 < value < 1, name, value, "it must lie between 0 and 1")
