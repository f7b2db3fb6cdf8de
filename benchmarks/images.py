"""What comparisons of whole runs share: a random part of a data set, and one setup a folder."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import torch

from tinygrow.data.prepared import DataCard, Split, load_card, load_split
from tinygrow.errors import TinygrowError
from tinygrow.files import write_json
from tinygrow.report.history import read_json
from tinygrow.training.batches import DeviceImages


class Counts(Protocol):
    """How many images a comparison takes."""

    @property
    def train_images(self) -> int:
        """Of the training images."""

    @property
    def validation_images(self) -> int:
        """Others of them, held out."""

    @property
    def test_images(self) -> int:
        """Looked at once, when a run is finished."""


@dataclass(frozen=True, slots=True)
class Images:
    """The three splits on their device, and what they show."""

    card: DataCard
    train: DeviceImages
    validation: DeviceImages
    test: DeviceImages


def load_images(path: Path, counts: Counts, device: torch.device) -> Images:
    """Take a random part of a data set, the same in every run.

    Args:
        path: the pipeline's prepared file (*.safetensors), or a file of `torch.save` that holds
            {"train": (uint8 images (N, C, H, W), int64 labels), "test": likewise}.
        counts: how many images.
        device: where they go.
    """
    generator = torch.Generator().manual_seed(0)

    def shuffled(split: Split) -> Split:
        order = torch.randperm(len(split.labels), generator=generator)
        return Split(split.images[order], split.labels[order])

    if path.suffix == ".safetensors":
        source, classes = load_card(path).source, load_card(path).classes
        rest, last = load_split(path, "train"), load_split(path, "test")
    else:
        stored = torch.load(path, weights_only=True)
        rest, last = Split(*stored["train"]), Split(*stored["test"])
        source = path.name
        classes = tuple(map(str, range(int(rest.labels.max()) + 1)))
    rest, last = shuffled(rest), shuffled(last)
    wanted = counts.train_images + counts.validation_images
    if len(rest.labels) < wanted or len(last.labels) < counts.test_images:
        raise TinygrowError(f"{path} has too few images: {wanted} for training are needed")
    train = _cut(rest, 0, counts.train_images)
    pixels = train.images.double() / 255
    splits = (
        train,
        _cut(rest, counts.train_images, wanted),
        _cut(last, 0, counts.test_images),
    )
    card = DataCard(
        name=path.stem,
        source=source,
        classes=classes,
        shape=tuple(train.images.shape[1:]),
        mean=tuple(pixels.mean((0, 2, 3)).tolist()),
        std=tuple(pixels.std((0, 2, 3)).tolist()),
        counts={"train": counts.train_images, "validation": counts.validation_images, "test": 0},
    )
    return Images(card, *(DeviceImages(split, card, device) for split in splits))


def _cut(split: Split, begin: int, end: int) -> Split:
    return Split(split.images[begin:end], split.labels[begin:end])


def make_runs(
    out: Path,
    names: Iterable[str],
    seeds: Iterable[int],
    setup: Counts,
    data: Path,
    device: torch.device,
    run: Callable[[str, int, Images], dict[str, Any]],
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Make what runs are missing, each a file `<name>-s<seed>.json`; yield their records.

    Args:
        out: folder of the runs; made where it is not there.
        names: of what is compared.
        seeds: every name is run with each of them, seed after seed.
        setup: what all runs share.
        data: as for `load_images`.
        device: where they are made.
        run: makes one, of a name and a seed; returns its record as plain values.
    """
    out.mkdir(parents=True, exist_ok=True)
    check_setup(out, setup, data)
    images = load_images(data, setup, device)
    for seed, name in product(seeds, list(names)):
        path = out / f"{name}-s{seed}.json"
        if not path.is_file():
            record = run(name, seed, images)
            write_json(path, record)
            yield name, seed, record


def check_setup(out: Path, setup: Any, data: Path) -> None:
    """Keep the setup (a dataclass) beside the runs, and refuse to mix runs of two.

    Raises:
        TinygrowError: the folder holds runs of another setup.
    """
    # A new setting with its default does not make old runs another experiment: names of
    # variants that use it do.
    now = {"data": data.name, **asdict(setup)}
    path = out / "setup.json"
    if not path.is_file():
        write_json(path, now)
        return
    for name, value in _flat(read_json(path)).items():
        current = _flat(now).get(name, value)
        if current != value:
            raise TinygrowError(
                f"{out} holds runs with {name} {value!r}, not {current!r}; take another folder"
            )


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            values |= _flat(value, f"{above}{name}.")
        else:
            values[above + name] = list(value) if isinstance(value, tuple) else value
    return values
