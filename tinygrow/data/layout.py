"""Which images a tree of files holds: `train/<class>/*` and `test/<class>/*`, or `<class>/*`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tinygrow.data.images import SUFFIXES
from tinygrow.data.tree import Entries, Tree, join
from tinygrow.errors import TinygrowError

_EXPECTED = "expected train/<class>/* and test/<class>/*, or <class>/*"


@dataclass(frozen=True, slots=True)
class Listing:
    """Image files and their labels, sorted by class and name.

    Attributes:
        files: paths in the tree.
        labels: of each file, an index into the classes.
    """

    files: list[str]
    labels: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What was found.

    Attributes:
        classes: names, sorted.
        train: training images, or all where the tree has no test images of its own.
        test: test images, or None.
        notes: lines to tell the user: what was ignored, what is missing but bearable.
    """

    classes: tuple[str, ...]
    train: Listing
    test: Listing | None
    notes: tuple[str, ...]


def find_images(tree: Tree, *, name: str, max_files: int) -> Layout:
    """List the images of a tree in an order that depends on names alone.

    A single folder at the top that holds everything is stepped into. Hidden files and `__MACOSX`
    are passed over; other files that are no images by their ending are ignored and counted, and
    so are images outside of class folders.

    Args:
        tree: to be searched.
        name: what errors call it.
        max_files: a tree with more files is refused.

    Raises:
        TinygrowError: the tree fits neither layout, has an empty class or a single one, or test
            classes that the training images lack.
    """
    scan = _Scan(tree, name, max_files)
    try:
        return scan.find()
    except OSError as error:
        raise TinygrowError(
            f"cannot read {name}: {error.strerror or error}; check its permissions"
        ) from error


@dataclass(slots=True)
class _Scan:
    """Reads folders, counts files and what is ignored."""

    tree: Tree
    name: str
    max_files: int
    files: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def find(self) -> Layout:
        """Find the layout."""
        root = self._top()
        folders = self.tree.entries(root).folders
        test = None
        if "train" in folders and "test" in folders:
            self._read(root, outside=True)
            classes, train = self._classes(join(root, "train"))
            test_classes, test = self._classes(join(root, "test"), known=classes)
            self._note_beside(folders, classes, test_classes)
        else:
            self._refuse_half(root, folders)
            classes, train = self._classes(root)
        if self.ignored:
            counts = ", ".join(f"{count:,} {what}" for what, count in sorted(self.ignored.items()))
            self.notes.insert(0, f"ignored in {self.name}: {counts}")
        return Layout(classes=classes, train=train, test=test, notes=tuple(self.notes))

    def _top(self) -> str:
        """Step into folders that hold nothing but one folder of folders."""
        root = ""
        while True:
            entries = self.tree.entries(root)
            if len(entries.folders) != 1 or _images(entries):
                return root
            inner = join(root, entries.folders[0])
            below = self.tree.entries(inner)
            if not below.folders or _images(below):
                return root
            self._read(root, outside=True)
            root = inner

    def _read(self, folder: str, *, outside: bool = False) -> Entries:
        """List a folder and count what is ignored in it, all images too if `outside` of classes."""
        entries = self.tree.entries(folder)
        self.files += len(entries.files)
        if self.files > self.max_files:
            raise TinygrowError(
                f"{self.name} holds more than {self.max_files:,} files; raise max_files if that is"
                " meant"
            )
        images = _images(entries)
        for other in set(entries.files).difference(images):
            ending = PurePosixPath(other).suffix.lower()
            self.ignored[f"{ending} files" if ending else "files without an ending"] += 1
        if outside and images:
            self.ignored["images outside of class folders"] += len(images)
        return entries

    def _classes(self, path: str, known: tuple[str, ...] = ()) -> tuple[tuple[str, ...], Listing]:
        """List `<class>/*` below `path`; with `known`, no other classes may occur."""
        names = self._read(path, outside=True).folders
        if not names:
            where = f"{self.name}/{path}" if path else self.name
            raise TinygrowError(f"{where} has no class folders; {_EXPECTED}")
        foreign = [one for one in names if one not in known]
        if known and foreign:
            raise TinygrowError(
                f"{self.name} has test images of {_some(foreign)}, which train/ lacks; name the"
                " folders alike in both"
            )
        listing = Listing([], [])
        for one in names:
            folder = join(path, one)
            entries = self._read(folder)
            images = _images(entries)
            if not images:
                raise TinygrowError(self._empty(folder, entries))
            if entries.folders:
                self.ignored["folders within class folders"] += len(entries.folders)
            listing.files.extend(join(folder, image) for image in images)
            listing.labels.extend([(known or names).index(one)] * len(images))
        if len(names) == 1 and not known:
            raise TinygrowError(
                f"{self.name} has a single class, {names[0]!r}; a classifier needs at least 2"
            )
        return names, listing

    def _refuse_half(self, root: str, folders: Sequence[str]) -> None:
        """Refuse `train` without `test`, or the reverse, unless it is a class."""
        for present, absent in (("train", "test"), ("test", "train")):
            if present in folders and not _images(self.tree.entries(join(root, present))):
                raise TinygrowError(
                    f"{self.name} has {present}/ but no {absent}/ (folders: {_some(folders)});"
                    f" {_EXPECTED}"
                )

    def _note_beside(
        self, folders: Sequence[str], classes: Sequence[str], test_classes: Sequence[str]
    ) -> None:
        others = [one for one in folders if one not in ("train", "test")]
        if others:
            self.notes.append(
                f"ignored beside train and test: {_some(others)} (validation images are taken out"
                " of train)"
            )
        missing = [one for one in classes if one not in test_classes]
        if missing:
            self.notes.append(f"warning: {self.name} has no test images of {_some(missing)}")

    def _empty(self, folder: str, entries: Entries) -> str:
        if entries.folders:
            found = f"but folders ({_some(entries.folders)}); {_EXPECTED}"
        elif entries.files:
            found = f"but {_some(entries.files)}; readable: {' '.join(sorted(SUFFIXES))}"
        else:
            found = "at all; add some or delete the folder"
        return f"{self.name}: class folder {folder!r} has no images {found}"


def _images(entries: Entries) -> list[str]:
    return [name for name in entries.files if PurePosixPath(name).suffix.lower() in SUFFIXES]


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
