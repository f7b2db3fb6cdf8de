"""The growth log: one tidy row an extension, with curves and spectra beside it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from tinygrow.table import to_csv


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionRow:
    """One extension; row 0 is the seed network. None: does not apply.

    Bottlenecks are Psi^2, in squared nats per unit of pre-activation, an image. Losses are mean
    cross-entropies in nats, accuracies percent, times seconds of wall time.

    Attributes:
        extension: running number, over all sites; training alone has one as well.
        sweep: visit of this site, from 1; 0 for training alone.
        depth: number of the layer that widened.
        site: module path of that layer.
        width_before: of the site.
        width_after: of the site.
        widths: all growable widths afterwards.
        parameters: of the network afterwards.
        multiply_adds: an image, afterwards.
        bottleneck_before: before the extension, with a method that measures it.
        bottleneck_predicted: before minus the squared singular values of the added neurons
            (exact for linear layers and amplitude 1).
        bottleneck_after: measured again on the widened network and the same images.
        largest_singular_value: lambda_1.
        singular_values_kept: how many became neurons.
        singular_values_dropped: how many did not; empty where a large problem leaves them unknown.
        power_kept: sum of their squares.
        power_dropped: likewise.
        sign: of the new neurons as a group.
        amplitude: gamma.
        rejected: whether no amplitude lowered the loss; never where it is fixed.
        loss_before: on the images of the line search.
        loss_after: likewise, at the chosen amplitude.
        train_loss: over the training that followed.
        train_accuracy: likewise.
        validation_loss: after that training.
        validation_accuracy: likewise.
        batch_size: of that training.
        epochs: passes over the training set so far.
        images_seen: image passes of training so far.
        statistics_images: images of the moments so far, with those that a choice of sites took;
            those of the line search and of the bottleneck measured again are not counted.
        seconds_statistics: moments, and all that went into a choice of sites.
        seconds_solve: linear algebra.
        seconds_search: normalisation, sign, line search.
        seconds_surgery: widening, running statistics, bottleneck measured again.
        seconds_training: of the training that followed.
    """

    extension: int
    sweep: int
    depth: int | None = None
    site: str | None = None
    width_before: int | None = None
    width_after: int | None = None
    widths: tuple[int, ...]
    parameters: int
    multiply_adds: int
    bottleneck_before: float | None = None
    bottleneck_predicted: float | None = None
    bottleneck_after: float | None = None
    largest_singular_value: float | None = None
    singular_values_kept: int | None = None
    singular_values_dropped: int | None = None
    power_kept: float | None = None
    power_dropped: float | None = None
    sign: int | None = None
    amplitude: float | None = None
    rejected: bool | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    validation_loss: float
    validation_accuracy: float
    batch_size: int | None = None
    epochs: float
    images_seen: int
    statistics_images: int
    seconds_statistics: float = 0.0
    seconds_solve: float = 0.0
    seconds_search: float = 0.0
    seconds_surgery: float = 0.0
    seconds_training: float = 0.0

    @property
    def seconds(self) -> float:
        """All of its seconds together."""
        return (
            self.seconds_statistics
            + self.seconds_solve
            + self.seconds_search
            + self.seconds_surgery
            + self.seconds_training
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionCurves:
    """What does not fit a table: the spectrum and the line search of one extension.

    Attributes:
        extension: as in its row.
        depth: number of the layer.
        site: module path of the layer.
        singular_values: all lambda, descending; of a large problem the leading ones.
        kept: how many became neurons.
        amplitudes: gamma tried.
        losses: mean training loss at each.
        chosen: gamma taken; 0 where rejected.
    """

    extension: int
    depth: int
    site: str
    singular_values: tuple[float, ...]
    kept: int
    amplitudes: tuple[float, ...]
    losses: tuple[float, ...]
    chosen: float


def rows_to_csv(rows: Sequence[ExtensionRow]) -> str:
    """Return the table as CSV; widths are joined by spaces, missing values are empty."""
    return to_csv([f.name for f in fields(ExtensionRow)], rows)


def curves_to_dict(curves: Sequence[ExtensionCurves]) -> dict[str, Any]:
    """Return spectra and line searches as plain data for JSON."""
    return {"extensions": [asdict(c) for c in curves]}
