"""CIFAR-10 and CIFAR-100 from their official archives; torchvision knows address and checksums.

The archives hold pickles, and to unpickle is to run whatever a file says. So nothing is unpickled
whose MD5 is not the official one: first the archive's is compared, then each file's. The authors
published no other sum. MD5 no longer keeps apart two files that one person made to be alike, but
nobody knows how to make a file to a given MD5: it tells the official archive, made in 2009, from
any other, if the sums in the installed torchvision are to be trusted.
"""

import shutil
import tarfile
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from tinygrow.data.cache import cache_folder, md5_of
from tinygrow.data.fetch import Patience, Remote, fetch
from tinygrow.data.source import Labelled, Source
from tinygrow.data.split import Purpose, stratified_subset
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.settings.data import CIFAR_SIDE, Cifar10Settings, Cifar100Settings

_MAX_BYTES = 2**28  # both archives have 170 MB
_DIGITS = 12  # of the checksum, in the description


def load_cifar(
    settings: Cifar10Settings | Cifar100Settings, *, name: str, base: Path, observer: Observer
) -> Source:
    """Download or find the official archive, verify it and read it.

    Args:
        settings: mirror, patience, parts.
        name: of the data set in `params.yaml`, for errors.
        base: what a relative `settings.mirror` is relative to.
        observer: is told of progress.

    Raises:
        TinygrowError: the archive cannot be had or is not the official one, or the disk is full.
    """
    # torchvision takes seconds to import.
    from torchvision.datasets import CIFAR10, CIFAR100

    title, official = "CIFAR-10", CIFAR10
    if isinstance(settings, Cifar100Settings):
        title, official = "CIFAR-100", CIFAR100
    archive = _verified(settings, official, name, base, observer)
    with _unpacked(archive, official, observer) as folder:
        train, classes = _read(folder, archive, official, train=True)
        test, _ = _read(folder, archive, official, train=False)
    found = len(train.labels), len(test.labels)
    # Two a class, since one of them becomes a validation image.
    train = _part(train, classes, settings.max_train_images, settings.seed, "max_train_images", 2)
    test = _part(test, classes, settings.max_test_images, settings.seed, "max_test_images", 1)
    return Source(
        description=_describe(title, official.tgz_md5, (train, test), found),
        classes=classes,
        train=train,
        test=test,
    )


def _verified(
    settings: Cifar10Settings | Cifar100Settings,
    official: Any,
    name: str,
    base: Path,
    observer: Observer,
) -> Path:
    """Return the path of an archive that has the official checksum."""
    mirror, file, md5 = settings.mirror, official.filename, official.tgz_md5
    wanted = f"{file} (md5 {md5})"
    address = urlsplit(mirror) if "://" in mirror else None
    if not mirror or (address and address.scheme != "file"):
        remedy = (
            f"set data.{name}.mirror to another address or to a local copy of {wanted}, set"
            " http_proxy and https_proxy where only a proxy leads out, or take images of your own"
            " (source: image_folder)"
        )
        target = cache_folder() / file
        remote = Remote(url=mirror or official.url, md5=md5, max_bytes=_MAX_BYTES, remedy=remedy)
        patience = Patience(attempts=settings.attempts, timeout=settings.timeout_seconds)
        fetch(remote, target, patience=patience, observer=observer)
        return target
    path = Path(url2pathname(address.path)) if address else base / mirror
    remedy = f"set it to the address or the path, relative to params.yaml, of {wanted}"
    try:
        found = md5_of(path)
    except OSError as error:
        raise TinygrowError(
            f"data.{name}.mirror is {mirror!r}: {error.strerror or error}; {remedy}"
        ) from error
    if found != md5:
        raise TinygrowError(
            f"data.{name}.mirror is {mirror!r}, which has md5 {found}, not the official one;"
            f" {remedy}"
        )
    return path


@contextmanager
def _unpacked(archive: Path, official: Any, observer: Observer) -> Iterator[Path]:
    """Yield a temporary folder with the official files of a verified archive, and no others."""
    names = [file for file, _ in (*official.train_list, *official.test_list)]
    wanted = {f"{official.base_folder}/{file}" for file in (*names, official.meta["filename"])}
    try:
        temporary = tempfile.TemporaryDirectory(prefix="tinygrow-")
    except OSError as error:
        raise _disk_error(archive, error) from error
    with temporary as folder:
        root = Path(folder)
        try:
            (root / official.base_folder).mkdir()
            with (
                tarfile.open(archive, "r:gz") as tar,
                observer.work(f"unpack {archive.name}", len(wanted), "files"),
            ):
                for member in tar:
                    content = tar.extractfile(member) if member.name in wanted else None
                    if content is not None:
                        with (root / member.name).open("xb") as file:
                            shutil.copyfileobj(content, file)
                        observer.advance()
        except OSError as error:
            raise _disk_error(archive, error) from error
        yield root


def _read(
    folder: Path, archive: Path, official: Any, *, train: bool
) -> tuple[Labelled, tuple[str, ...]]:
    """Let torchvision compare the checksum of each file, unpickle and put together."""
    try:
        with warnings.catch_warnings():
            # NumPy 2.4.0 to 2.4.4 warn of arrays that were pickled as long ago as these.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            part = official(folder, train=train, download=False)
    except RuntimeError as error:
        raise TinygrowError(
            f"a file in {archive} is missing or has another checksum than torchvision knows; delete"
            " the archive and install the torchvision of requirements.lock"
        ) from error
    images = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))
    return Labelled(images, np.array(part.targets, dtype=np.int64)), tuple(part.classes)


def _part(
    images: Labelled,
    classes: tuple[str, ...],
    count: int,
    seed: int,
    purpose: Purpose,
    per_class: int,
) -> Labelled:
    if count == 0:
        return images
    chosen = stratified_subset(
        images.labels, classes, count, seed=seed, purpose=purpose, per_class=per_class
    )
    return Labelled(images.images[chosen], images.labels[chosen])


def _describe(
    title: str, md5: str, parts: tuple[Labelled, Labelled], found: tuple[int, int]
) -> str:
    line = f"{title}, official archive (md5 {md5[:_DIGITS]}), {CIFAR_SIDE}x{CIFAR_SIDE} color"
    for part, count, what in zip(parts, found, ("training", "test"), strict=True):
        if len(part.labels) < count:
            line += f", {len(part.labels):,} of {count:,} {what} images"
    return line


def _disk_error(archive: Path, error: OSError) -> TinygrowError:
    return TinygrowError(
        f"cannot unpack {archive}: {error.strerror or error}; free disk space, or set TMPDIR to a"
        " folder with more"
    )
