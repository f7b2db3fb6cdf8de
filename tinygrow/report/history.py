"""How a model came to be, read back from the tables that growth and fine-tuning wrote."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TypeVar

from tinygrow.errors import TinygrowError
from tinygrow.networks.cost import TRAINING_PASSES

NAN = math.nan
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionRow:
    """The network after one extension and the training behind it; row 0 is the seed network.

    A number that does not apply (row 0, a method without statistics) is NaN. Accuracies are in
    percent.

    Attributes:
        extension: running number.
        sweep: visits of this site so far, this one included; None in row 0.
        depth: number of the layer that widened; None where none did.
        width_before: of that layer.
        width_after: of that layer.
        widths: of every growable layer, in order of depth.
        parameters: of the whole network.
        multiply_adds: of a forward pass of one image.
        bottleneck_before: what the layer could not express.
        bottleneck_predicted: what the closed form promises to leave.
        bottleneck_after: what was left.
        largest_singular_value: of all directions found.
        amplitude: that the line search chose.
        rejected: 1 where the line search found no gain.
        train_loss: over the training behind the extension.
        train_accuracy: likewise.
        validation_loss: at its end.
        validation_accuracy: at its end.
        epochs: of training, from the beginning.
        images_seen: in training, from the beginning.
        statistics_images: read for statistics, from the beginning.
        seconds_statistics: of wall time for this extension, as the four others.
        seconds_solve: for the closed form.
        seconds_search: for the amplitude.
        seconds_surgery: for the change of the network.
        seconds_training: for the training behind it.
    """

    extension: int
    sweep: int | None
    depth: int | None
    width_before: float
    width_after: float
    widths: tuple[int, ...]
    parameters: float
    multiply_adds: float
    bottleneck_before: float
    bottleneck_predicted: float
    bottleneck_after: float
    largest_singular_value: float
    amplitude: float
    rejected: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    epochs: float
    images_seen: float
    statistics_images: float
    seconds_statistics: float
    seconds_solve: float
    seconds_search: float
    seconds_surgery: float
    seconds_training: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """One epoch of fine-tuning; row 0 is the network before it.

    Attributes:
        epoch: running number.
        images_seen: in fine-tuning so far.
        train_loss: over the epoch.
        train_accuracy: likewise, in percent.
        validation_loss: at its end.
        validation_accuracy: at its end, in percent.
    """

    epoch: int
    images_seen: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionDetail:
    """The spectrum and the line search of one extension.

    Attributes:
        extension: running number.
        depth: number of the layer that widened.
        singular_values: all, descending.
        kept: how many of them became neurons.
        amplitudes: tried, ascending; the first is 0.
        losses: training loss at each of them.
        chosen: the amplitude that was taken; None where none was.
    """

    extension: int
    depth: int
    singular_values: tuple[float, ...] = ()
    kept: int = 0
    amplitudes: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    chosen: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The whole way of one model.

    Attributes:
        name: of the model.
        growth: the seed network, then one row an extension.
        details: of the extensions that have any.
        finetuning: one row an epoch; empty where there was none.
    """

    name: str
    growth: tuple[ExtensionRow, ...]
    details: tuple[ExtensionDetail, ...] = ()
    finetuning: tuple[EpochRow, ...] = ()

    @classmethod
    def read(cls, name: str, growth: Path, details: Path, finetuning: Path) -> Self:
        """Read the three files.

        Args:
            name: of the model.
            growth: CSV, one row an extension.
            details: JSON with spectra and line searches.
            finetuning: CSV, one row an epoch.

        Raises:
            TinygrowError: a file is missing or is not what its stage writes.
        """
        rows = read_table(growth, ExtensionRow)
        if not rows:
            raise TinygrowError(f"{growth} has no rows; run the grow stage again")
        return cls(
            name=name,
            growth=tuple(rows),
            details=_read_details(details),
            finetuning=tuple(read_table(finetuning, EpochRow)),
        )

    @property
    def extensions(self) -> tuple[ExtensionRow, ...]:
        """The rows in which a layer widened."""
        return tuple(
            r for r in self.growth if r.depth is not None and r.width_after > r.width_before
        )

    @property
    def in_sweeps(self) -> bool:
        """Whether the layers widened in turn, again and again, and not as a plan chose."""
        order = [(r.sweep or 0, r.depth or 0) for r in self.extensions]
        return order == sorted(order)

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths that were visited, ascending."""
        return tuple(sorted({r.depth for r in self.growth if r.depth is not None}))

    @property
    def layers(self) -> tuple[str, tuple[int, ...]]:
        """What the growable layers are counted by, and the number of each, in order of depth.

        By depth where each was visited; a budget may end growth before that.
        """
        count = len(self.growth[0].widths)
        if len(self.depths) == count:
            return "depth", self.depths
        return "layer", tuple(range(1, count + 1))

    @property
    def growth_epochs(self) -> float:
        """Epochs of training in growth."""
        return self.growth[-1].epochs

    @property
    def images_seen(self) -> float:
        """Image passes of all training."""
        return self.growth[-1].images_seen + (
            self.finetuning[-1].images_seen if self.finetuning else 0
        )

    @property
    def training_multiply_adds(self) -> float:
        """Multiply-adds of all training: three forward passes an image pass, at its width."""
        last = self.growth[-1]
        passes = math.fsum(
            (row.images_seen - before.images_seen) * row.multiply_adds
            for before, row in pairwise(self.growth)
        )
        passes += (self.images_seen - last.images_seen) * last.multiply_adds
        return TRAINING_PASSES * passes

    def total(self, column: str) -> float:
        """Sum a column of growth over the rows in which it applies."""
        return math.fsum(v for r in self.growth if not math.isnan(v := getattr(r, column)))


def read_json(path: Path) -> Any:
    """Read a JSON file that an earlier stage wrote.

    Raises:
        TinygrowError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TinygrowError(
            f"{path} does not exist; run the stage that makes it (dvc repro)"
        ) from error
    except (OSError, ValueError) as error:
        raise TinygrowError(f"{path} is damaged ({error}); run its stage again") from error


def read_table(path: Path, row: type[T]) -> list[T]:
    """Read the columns of a CSV file that the dataclass `row` names; further ones are ignored.

    Raises:
        TinygrowError: the file or a column is missing, or a cell is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            cells = list(reader)
    except FileNotFoundError as error:
        raise TinygrowError(
            f"{path} does not exist; run the stage that makes it (dvc repro)"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise TinygrowError(f"{path} is damaged ({error}); run its stage again") from error
    columns = {f.name: f.type for f in fields(row)}  # type: ignore[arg-type]
    missing = [name for name in columns if name not in header]
    if missing:
        raise TinygrowError(
            f"{path} lacks the columns {', '.join(missing)}; run its stage again with this version"
        )
    return [_read_row(path, number, line, row, columns) for number, line in enumerate(cells, 2)]


def _read_row(
    path: Path, number: int, cells: Mapping[str, str | None], row: type[T], columns: dict[str, Any]
) -> T:
    values: dict[str, Any] = {}
    for name, kind in columns.items():
        text = (cells[name] or "").strip()
        try:
            values[name] = _PARSERS[kind](text)
        except ValueError as error:
            raise TinygrowError(
                f"{path}:{number}: {name} is {text!r}, which is no number; run its stage again"
            ) from error
    return row(**values)


def _read_details(path: Path) -> tuple[ExtensionDetail, ...]:
    value = read_json(path)
    known = {f.name for f in fields(ExtensionDetail)}
    try:
        entries: Iterable[Mapping[str, Any]] = value["extensions"]
        return tuple(_detail({k: v for k, v in e.items() if k in known}) for e in entries)
    except (KeyError, TypeError, AttributeError) as error:
        raise TinygrowError(
            f"{path} is not a growth log ({error!r}); run the grow stage again"
        ) from error


def _detail(values: dict[str, Any]) -> ExtensionDetail:
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
    return ExtensionDetail(**values)


_PARSERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    float: lambda text: float(text) if text else NAN,
    int | None: lambda text: int(text) if text else None,
    tuple[int, ...]: lambda text: tuple(int(t) for t in text.split()),
}
