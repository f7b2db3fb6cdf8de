"""The one form of prepared data: uint8 tensors in a safetensors file, its card in the header."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tinygrow.errors import TinygrowError
from tinygrow.files import atomic_path

FORMAT = "tinygrow-images-1"
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCard:
    """What there is to know of a data set without loading it.

    Attributes:
        name: of the data set in `params.yaml`.
        source: one line that says where the images come from and in which form.
        classes: names, in the order of the labels.
        shape: channels, height, width.
        mean: of each channel over the training images, in units of full scale (0 to 1).
        std: likewise.
        counts: images of each split.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Split:
    """Images and labels.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
    """

    images: torch.Tensor
    labels: torch.Tensor


def save_prepared(path: Path, card: DataCard, splits: dict[SplitName, Split]) -> None:
    """Write all three splits atomically; the same images give the same bytes."""
    tensors: dict[str, torch.Tensor] = {}
    for name in SPLITS:
        tensors[f"{name}_images"] = splits[name].images.contiguous()
        tensors[f"{name}_labels"] = splits[name].labels.contiguous()
    header = json.dumps({"format": FORMAT, "card": asdict(card)}, sort_keys=True)
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"tinygrow": header})
        except SafetensorError as error:  # this is how it calls a full disk
            raise OSError(str(error)) from error


def load_card(path: Path) -> DataCard:
    """Read the header alone."""
    card: dict[str, Any] = _header(Path(path))["card"]
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card.items()}
    return DataCard(**values)


def load_split(path: Path, which: SplitName) -> Split:
    """Read one split; the others stay on disk, so the test set cannot leak into a decision."""
    _header(Path(path))
    with safe_open(path, framework="pt") as file:
        return Split(file.get_tensor(f"{which}_images"), file.get_tensor(f"{which}_labels"))


def _header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise TinygrowError(f"{path} does not exist; run the download stage (dvc repro)")
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {}).get("tinygrow", "{}"))
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise TinygrowError(
            f"{path} is damaged ({error}); delete it and run the download stage again"
        ) from error
    if header.get("format") != FORMAT:
        raise TinygrowError(
            f"{path} has format {header.get('format')!r}, not {FORMAT!r};"
            " run the download stage again"
        )
    return header
