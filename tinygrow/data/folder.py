"""The user's own images: a folder or an archive of class folders."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinygrow.data.archive import unpacked
from tinygrow.data.images import SUFFIXES, decode_image
from tinygrow.data.layout import Layout, Listing, find_images
from tinygrow.data.source import Labelled, Source
from tinygrow.data.split import Purpose, stratified_split, stratified_subset
from tinygrow.data.tree import FolderTree, Tree
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.settings.data import ImageFolderSettings

_CHUNK = 64  # images a task: a task for each image would cost more than a small image
_DIGITS = 12  # of a digest, in hexadecimal


def load_image_folder(settings: ImageFolderSettings, *, base: Path, observer: Observer) -> Source:
    """Read a folder or an archive of images.

    Args:
        settings: path, size, mode, parts.
        base: what a relative `settings.path` is relative to.
        observer: is told of progress, of what is ignored and of images that occur twice.

    Raises:
        TinygrowError: nothing there, an unsafe or damaged archive, a layout that fits neither
            form, or a damaged image.
    """
    path = base / settings.path
    if path.is_dir():
        return _load(FolderTree(path), settings, observer, archive_digest="")
    if not path.is_file():
        raise TinygrowError(
            f"image folder {settings.path!r} does not exist; set path to a folder or an archive,"
            " relative to params.yaml"
        )
    with unpacked(
        path,
        max_files=settings.max_files,
        max_bytes=int(settings.max_gigabytes * 1e9),
        observer=observer,
    ) as tree:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return _load(tree, settings, observer, archive_digest=digest)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Images to be decoded: files and labels (N,)."""

    files: list[str]
    labels: np.ndarray

    def part(self, indices: np.ndarray) -> "_Chosen":
        return _Chosen([self.files[i] for i in indices], self.labels[indices])


def _load(
    tree: Tree, settings: ImageFolderSettings, observer: Observer, *, archive_digest: str
) -> Source:
    layout = find_images(tree, name=settings.path, max_files=settings.max_files)
    for note in layout.notes:
        observer.say(note)
    train, test, found = _choose(layout, settings)
    channels = 1 if settings.mode == "grey" else 3
    decoder = _Decoder(tree, settings.path, settings.size, channels)
    with observer.work("decode images", len(train.files) + len(test.files), "images"):
        train_images, train_digests = decoder.decode(train.files, observer)
        test_images, test_digests = decoder.decode(test.files, observer)
    files, digests = train.files + test.files, train_digests + test_digests
    labels = np.concatenate([train.labels, test.labels])
    for line in _twins(decoder, files, digests, labels, len(train.files)):
        observer.say(line)
    if archive_digest:
        identity = f"sha256 {archive_digest[:_DIGITS]}"
    else:
        identity = f"content {_content_digest(files, digests)}"
    return Source(
        description=_describe(settings, identity, files, found, (train, test)),
        classes=layout.classes,
        train=Labelled(train_images, train.labels),
        test=Labelled(test_images, test.labels),
    )


def _choose(
    layout: Layout, settings: ImageFolderSettings
) -> tuple[_Chosen, _Chosen, tuple[int, int]]:
    """Take out test images where there are none, then the parts asked for.

    Returns:
        Training images, test images, and how many of each there were to choose from.
    """
    train, classes, seed = _chosen(layout.train), layout.classes, settings.seed
    if layout.test is None:
        fraction = settings.test_fraction
        rest, part = stratified_split(train.labels, classes, fraction, seed=seed, purpose="test")
        train, test = train.part(rest), train.part(part)
    else:
        test = _chosen(layout.test)
    found = len(train.files), len(test.files)

    def limit(images: _Chosen, count: int, purpose: Purpose, per_class: int) -> _Chosen:
        if count == 0:
            return images
        return images.part(
            stratified_subset(
                images.labels, classes, count, seed=seed, purpose=purpose, per_class=per_class
            )
        )

    # Two a class, since one of them becomes a validation image.
    train = limit(train, settings.max_train_images, "max_train_images", 2)
    test = limit(test, settings.max_test_images, "max_test_images", 1)
    return train, test, found


def _chosen(listing: Listing) -> _Chosen:
    return _Chosen(listing.files, np.array(listing.labels, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class _Decoder:
    """Decodes files of `tree` on all cores; errors name them as the user knows them."""

    tree: Tree
    source: str
    size: int
    channels: int

    def name(self, file: str) -> str:
        return f"{self.source.rstrip('/')}/{file}"

    def decode(self, files: Sequence[str], observer: Observer) -> tuple[np.ndarray, list[bytes]]:
        """Return uint8 (N, C, H, W) and the SHA-256 of each file."""
        shape = (len(files), self.channels, self.size, self.size)
        try:
            images = np.empty(shape, np.uint8)
        except MemoryError as error:
            raise TinygrowError(
                f"{len(files):,} images of size {self.size} need {np.prod(shape) / 1e9:.1f} GB of"
                " memory; lower size or max_train_images"
            ) from error
        digests: list[bytes] = []

        def chunk(start: int) -> list[bytes]:
            found = []
            for index in range(start, min(start + _CHUNK, len(files))):
                name = self.name(files[index])
                content = self.tree.read(files[index], name=name)
                images[index] = decode_image(
                    content, name=name, size=self.size, channels=self.channels
                )
                found.append(hashlib.sha256(content).digest())
            return found

        # Pillow warns of odd metadata, without the file's name. The filter belongs to the whole
        # process, so it is set once, outside of the threads.
        with warnings.catch_warnings(), ThreadPoolExecutor(_cores()) as pool:
            warnings.simplefilter("ignore")
            try:
                for found in pool.map(chunk, range(0, len(files), _CHUNK)):
                    digests += found
                    observer.advance(len(found))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return images, digests


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _twins(
    decoder: _Decoder, files: list[str], digests: list[bytes], labels: np.ndarray, train: int
) -> list[str]:
    """Tell of files that occur in two classes, or in the training and in the test images."""
    first: dict[bytes, int] = {}
    torn: list[tuple[int, int]] = []
    leaked: list[tuple[int, int]] = []
    for index, digest in enumerate(digests):
        twin = first.setdefault(digest, index)
        if labels[twin] != labels[index]:
            torn.append((twin, index))
        elif twin < train <= index:
            leaked.append((twin, index))
    lines = []
    for pairs, what in (
        (torn, "also occur in another class, which cannot both be right"),
        (leaked, "of the test images are also training images, which flatters the accuracy"),
    ):
        if pairs:
            one, two = (decoder.name(files[index]) for index in pairs[0])
            lines.append(f"warning: {len(pairs):,} files {what}; the first: {one} = {two}")
    return lines


def _content_digest(files: list[str], digests: list[bytes]) -> str:
    """Digest names and contents of the images that were used."""
    whole = hashlib.sha256()
    for file, digest in sorted(zip(files, digests, strict=True)):
        whole.update(file.encode(errors="surrogateescape"))
        whole.update(b"\0" + digest)
    return whole.hexdigest()[:_DIGITS]


def _describe(
    settings: ImageFolderSettings,
    identity: str,
    files: list[str],
    found: tuple[int, int],
    parts: tuple[_Chosen, _Chosen],
) -> str:
    name = Path(settings.path).name
    forms = ", ".join(sorted({SUFFIXES[Path(file).suffix.lower()] for file in files}))
    line = f"image folder {name} ({identity}), {forms}"
    for part, count, what in zip(parts, found, ("training", "test"), strict=True):
        if len(part.files) < count:
            line += f", {len(part.files):,} of {count:,} {what} images"
    return line
