"""Where images come from and how they are prepared."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from tinygrow.settings.check import MAX_SEED, MAX_SIDE, at_least, between, one_of, require

CIFAR_SIDE = 32
_MAX_ATTEMPTS = 1000
_DAY = 86_400.0


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
        _check_fraction("test_fraction", self.test_fraction)
        _check_fraction("validation_fraction", self.validation_fraction)


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
        _check_fraction("test_fraction", self.test_fraction)
        _check_fraction("validation_fraction", self.validation_fraction)
        at_least("max_train_images", self.max_train_images, 0)
        at_least("max_test_images", self.max_test_images, 0)
        at_least("max_files", self.max_files, 1)
        between("seed", self.seed, 0, MAX_SEED)
        require(self.max_gigabytes > 0, "max_gigabytes", self.max_gigabytes, "it must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class CifarSettings:
    """What CIFAR-10 and CIFAR-100 have in common: the official archive, its own test set.

    Attributes:
        mirror: where the official archive lies instead of the address that torchvision knows: an
            address (http, https, file) or a file, relative to the pipeline's folder. Empty: there.
        validation_fraction: share of the training images kept for decisions.
        max_train_images: a stratified random part of the training images (before the validation
            images are taken out); 0: all.
        max_test_images: likewise for the test images.
        seed: of the split and of the parts.
        attempts: tries of the download in a row that bring nothing new, after which it fails.
        timeout_seconds: silence after which a connection counts as dead.
    """

    mirror: str = ""
    validation_fraction: float = 0.1
    max_train_images: int = 0
    max_test_images: int = 0
    seed: int = 0
    attempts: int = 5
    timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        _check_mirror(self.mirror)
        _check_fraction("validation_fraction", self.validation_fraction)
        at_least("max_train_images", self.max_train_images, 0)
        at_least("max_test_images", self.max_test_images, 0)
        between("seed", self.seed, 0, MAX_SEED)
        between("attempts", self.attempts, 1, _MAX_ATTEMPTS)
        name, value = "timeout_seconds", self.timeout_seconds
        require(0 < value <= _DAY, name, value, f"it must be above 0 and at most {_DAY:g}")

    @property
    def size(self) -> int:
        """Side of the images, in pixels: they keep their own."""
        return CIFAR_SIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Cifar10Settings(CifarSettings):
    """CIFAR-10: 50,000 training and 10,000 test images of 10 classes, 32x32, color."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cifar100Settings(CifarSettings):
    """CIFAR-100: 50,000 training and 10,000 test images of 100 (fine) classes, 32x32, color."""


DataSettings = DigitsSettings | ImageFolderSettings | Cifar10Settings | Cifar100Settings


def _check_fraction(name: str, value: float) -> None:
    require(0 < value < 1, name, value, "it must lie between 0 and 1")


def _check_mirror(mirror: str) -> None:
    """Refuse an address that no attempt could ever reach."""
    if "://" not in mirror:
        return
    try:
        parts = urlsplit(mirror)
        if parts.scheme == "file":
            right = parts.netloc in ("", "localhost")
        else:
            right = parts.scheme in ("http", "https") and bool(parts.hostname)
            right = right and parts.port != 0 and parts.username is None
    except ValueError:  # a port that is no number, brackets that do not match
        right = False
    right = right and mirror.isascii() and mirror.isprintable() and " " not in mirror
    require(
        right,
        "mirror",
        mirror,
        "it must be an address such as https://host/cifar-10-python.tar.gz, percent-encoded and"
        " without a password, or file:///path, or a path",
    )
