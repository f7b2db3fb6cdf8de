"""Training at full width, epoch by epoch, with a log."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from torch import nn

from tinygrow.observer import Observer
from tinygrow.settings.training import FinetuneSettings
from tinygrow.table import to_csv
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.evaluate import evaluate
from tinygrow.training.loop import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """One epoch; row 0 is the network before fine-tuning. None: not measured.

    Attributes:
        epoch: from 1.
        images_seen: image passes of this stage so far.
        learning_rate: at the last step.
        train_loss: mean over the epoch's steps, in nats.
        train_accuracy: percent, of augmented images.
        validation_loss: in nats.
        validation_accuracy: percent.
        seconds: of training in this epoch.
        images_per_second: of training in this epoch.
    """

    epoch: int
    images_seen: int
    learning_rate: float | None = None
    train_loss: float | None = None
    train_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    seconds: float = 0.0
    images_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Finetuned:
    """What fine-tuning leaves behind: the last epoch's network, never a chosen one.

    Attributes:
        network: in evaluation mode; the moving average where the recipe keeps one.
        rows: the log.
    """

    network: nn.Module
    rows: tuple[EpochRow, ...]


def finetune(
    network: nn.Module,
    stream: TrainingStream,
    validation: DeviceImages,
    settings: FinetuneSettings,
    *,
    observer: Observer | None = None,
) -> Finetuned:
    """Train `network` in place for `settings.epochs` epochs.

    Args:
        network: on the stream's device.
        stream: training images.
        validation: for the log alone; nothing is decided by it.
        settings: epochs and recipe.
        observer: is told of steps and epochs.

    Raises:
        TinygrowError: training diverged.
    """
    observer = observer or Observer()
    trainer = Trainer(
        network, stream, settings.training, total_epochs=settings.epochs, observer=observer
    )
    loss, accuracy = evaluate(network, validation)
    rows = [EpochRow(epoch=0, images_seen=0, validation_loss=loss, validation_accuracy=accuracy)]
    with observer.work("finetune", settings.epochs * len(stream), "images"):
        for epoch in range(1, settings.epochs + 1):
            done = trainer.train(1.0)
            looks = epoch % settings.evaluate_every == 0 or epoch == settings.epochs
            measured = evaluate(trainer.result, validation) if looks else (None, None)
            rows.append(
                EpochRow(
                    epoch=epoch,
                    images_seen=trainer.images_seen,
                    learning_rate=done.learning_rate,
                    train_loss=done.loss,
                    train_accuracy=done.accuracy,
                    validation_loss=measured[0],
                    validation_accuracy=measured[1],
                    seconds=done.seconds,
                    images_per_second=done.images / done.seconds,
                )
            )
            observer.say(_line(rows[-1], settings.epochs))
    return Finetuned(trainer.result.eval(), tuple(rows))


def epochs_to_csv(rows: Sequence[EpochRow]) -> str:
    """Return the log as CSV; missing values are empty."""
    return to_csv([f.name for f in fields(EpochRow)], rows)


def _line(row: EpochRow, epochs: int) -> str:
    validation = ""
    if row.validation_accuracy is not None:
        validation = f" validation {row.validation_accuracy:.2f} %"
    return (
        f"epoch {row.epoch}/{epochs} lr {row.learning_rate:.3g} loss {row.train_loss:.4f}"
        f" train {row.train_accuracy:.2f} %{validation} {row.images_per_second:.0f} images/s"
    )
