"""Fills the growth log while growth runs."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from tinygrow.architecture import Architecture
from tinygrow.growth.extend import Extension
from tinygrow.growth.log import ExtensionCurves, ExtensionRow
from tinygrow.growth.schedule import Visit
from tinygrow.growth.sites import Site
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.training.batches import DeviceImages
from tinygrow.training.evaluate import evaluate
from tinygrow.training.loop import Trainer, TrainingSummary


@dataclass(frozen=True, slots=True)
class ExtensionFacts:
    """What the log keeps of an extension: plain values, as the training behind it may take long.

    Attributes:
        added: new units.
        images: of the moments.
        columns: of its `ExtensionRow`.
        curves: of its `ExtensionCurves`; None where no amplitude was chosen.
    """

    added: int
    images: int
    columns: dict[str, Any]
    curves: dict[str, Any] | None


class Recorder:
    """Collects the rows of the growth log.

    Args:
        trainer: of the growing network; what it would keep is evaluated.
        validation: images of the log's accuracy.
        start: the seed architecture.
    """

    def __init__(
        self,
        trainer: Trainer,
        validation: DeviceImages,
        start: Architecture,
    ) -> None:
        self.rows: list[ExtensionRow] = []
        self.curves: list[ExtensionCurves] = []
        self._trainer = trainer
        self._validation = validation
        self._start = start
        self._input_shape = start.input_shape
        self._statistics_images = 0

    def seed_row(self) -> None:
        """Log the network before anything is done to it."""
        self.rows.append(ExtensionRow(extension=0, sweep=0, **self._state(self._start)))

    def add(
        self,
        visit: Visit | None,
        site: Site | None,
        architecture: Architecture,
        extension: ExtensionFacts | None,
        training: TrainingSummary | None,
    ) -> ExtensionRow:
        """Log one visit, or (None) training alone."""
        facts = dict(extension.columns) if extension else {}
        if extension:
            self._statistics_images += extension.images
        if training:
            facts |= {
                "train_loss": training.loss,
                "train_accuracy": training.accuracy,
                "batch_size": round(self._trainer.batch_size),
                "seconds_training": training.seconds,
            }
        if site is not None:
            width = architecture.middle_widths[site.index]
            facts |= {
                "depth": site.depth,
                "site": site.name,
                "width_before": width - (extension.added if extension else 0),
                "width_after": width,
            }
        row = ExtensionRow(
            extension=len(self.rows),
            sweep=visit.sweep if visit else 0,
            **self._state(architecture),
            **facts,
        )
        self.rows.append(row)
        if site is not None and extension and extension.curves is not None:
            self.curves.append(
                ExtensionCurves(
                    extension=row.extension, depth=site.depth, site=site.name, **extension.curves
                )
            )
        return row

    def state(self) -> dict[str, Any]:
        """Return the log so far as plain values."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "curves": [asdict(curves) for curves in self.curves],
            "statistics_images": self._statistics_images,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a log."""
        self.rows = [ExtensionRow(**row) for row in state["rows"]]
        self.curves = [ExtensionCurves(**curves) for curves in state["curves"]]
        self._statistics_images = state["statistics_images"]

    def _state(self, architecture: Architecture) -> dict[str, Any]:
        network = self._trainer.result
        loss, accuracy = evaluate(network, self._validation)
        return {
            "widths": architecture.middle_widths,
            "parameters": count_parameters(network),
            "multiply_adds": count_multiply_adds(network, self._input_shape),
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "epochs": self._trainer.epochs_seen,
            "images_seen": self._trainer.images_seen,
            "statistics_images": self._statistics_images,
        }


def facts_of(extension: Extension, choice: ExtensionFacts | None = None) -> ExtensionFacts:
    """Return what the log keeps of an extension, and of the choice of its site."""
    proposal, amplitude = extension.proposal, extension.amplitude
    columns: dict[str, Any] = {
        "bottleneck_before": proposal.bottleneck,
        "bottleneck_after": extension.bottleneck_after,
        "seconds_statistics": proposal.seconds_statistics,
        "seconds_solve": proposal.seconds_solve,
        "seconds_search": extension.seconds_search,
        "seconds_surgery": extension.seconds_surgery,
    }
    spectrum = proposal.neurons.spectrum
    # Fewer than there are, where a choice was made among candidates or widths are multiples.
    kept = min(len(proposal.neurons.singular_values), extension.added)
    if len(spectrum):
        power = spectrum.double().square()
        columns |= {
            "largest_singular_value": float(spectrum[0]),
            "singular_values_kept": kept,
            "power_kept": float(power[:kept].sum()),
        }
        if proposal.neurons.complete:
            columns["singular_values_dropped"] = len(spectrum) - kept
            columns["power_dropped"] = float(power[kept:].sum())
        if proposal.bottleneck is not None and proposal.predicts:
            columns["bottleneck_predicted"] = proposal.bottleneck - float(power[:kept].sum())
    curves = None
    if amplitude:
        curves = {
            "singular_values": tuple(spectrum.tolist()),
            "kept": kept,
            "amplitudes": amplitude.amplitudes,
            "losses": amplitude.losses,
            "chosen": amplitude.factor,
        }
        columns |= {
            "sign": amplitude.sign,
            "amplitude": amplitude.factor,
            "rejected": amplitude.rejected,
            "loss_before": amplitude.loss_before,
            "loss_after": amplitude.loss_after,
        }
    images = proposal.images
    if choice is not None:
        images += choice.images
        columns["seconds_statistics"] += choice.columns["seconds_statistics"]
    return ExtensionFacts(extension.added, images, columns, curves)


def facts_of_choice(images: int, seconds: float) -> ExtensionFacts:
    """Return what the log keeps of a choice between sites.

    Args:
        images: of the moments at all sites.
        seconds: of all that was measured.
    """
    return ExtensionFacts(0, images, {"seconds_statistics": seconds}, None)


def row_line(row: ExtensionRow, total: str) -> str:
    """Return one line on an extension, for terminals without a bar.

    Args:
        row: of the log.
        total: how many rows there will be, such as `48` or `at most 96`.
    """
    what = f"training {row.extension}/{total}"
    if row.depth is not None:
        growth = f"{row.width_before} -> {row.width_after}"
        what = f"extension {row.extension}/{total} depth {row.depth} width {growth}"
    search = ""
    if row.loss_before is not None and row.loss_after is not None:
        search = (
            f" loss {row.loss_before:.4f} -> {row.loss_after:.4f}"
            f" (amplitude {row.amplitude:.3g}{', rejected' if row.rejected else ''})"
        )
    trained = row.train_loss is not None and not math.isnan(row.train_loss)
    train = f" train loss {row.train_loss:.3f}" if trained else ""
    return (
        f"{what}{search}{train}"
        f" validation {row.validation_accuracy:.2f} % parameters {row.parameters:,}"
    )
