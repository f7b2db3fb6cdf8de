"""Training at full width, epoch by epoch, with a log."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import nn

from tinygrow.observer import Observer
from tinygrow.settings.training import FinetuneSettings
from tinygrow.state.keeper import Keeper
from tinygrow.table import to_csv
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.evaluate import evaluate
from tinygrow.training.loop import Trainer, TrainingSummary


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
        converged: whether accuracy had stopped rising by `settings.epochs`; None where that was
            not asked (`max_epochs` is not above `epochs`).
    """

    network: nn.Module
    rows: tuple[EpochRow, ...]
    converged: bool | None = None


def finetune(
    network: nn.Module,
    stream: TrainingStream,
    validation: DeviceImages,
    settings: FinetuneSettings,
    *,
    observer: Observer | None = None,
    keeper: Keeper | None = None,
) -> Finetuned:
    """Train `network` in place for `settings.epochs` epochs, or more where it has not converged.

    Args:
        network: on the stream's device.
        stream: training images.
        validation: for the log, and for the decision whether training has converged.
        settings: epochs and recipe.
        observer: is told of steps and epochs.
        keeper: keeps the state, from which an interrupted run goes on.

    Raises:
        TinygrowError: training diverged.
    """
    observer, keeper = observer or Observer(), keeper or Keeper()
    trainer = Trainer(
        network,
        stream,
        settings.training,
        total_epochs=settings.epochs,
        observer=observer,
        compile=settings.compile,
        inducement=settings.stability,
    )
    rows: list[EpochRow] = []
    done: TrainingSummary | None = None  # of an epoch that is trained but not yet in the log

    def capture() -> dict[str, Any]:
        over = len(rows) > _planned_epochs(rows, settings)
        epochs = f"epoch {trainer.epochs_seen:.2f} of {settings.epochs}"
        return {
            "progress": "the end" if over else epochs,
            "trainer": trainer.state(),
            "rows": [asdict(row) for row in rows],
            "done": None if done is None else asdict(done),
        }

    kept = keeper.restore()
    if kept is not None:
        trainer.restore(kept["trainer"], network)
        rows += [EpochRow(**row) for row in kept["rows"]]
        done = None if kept["done"] is None else TrainingSummary(**kept["done"])
    trainer.after_step = lambda: keeper.step(capture)
    with observer.work("finetune", settings.epochs * len(stream), "images"):
        observer.advance(trainer.images_seen)
        if not rows:
            with keeper.held(capture):
                loss, accuracy = evaluate(network, validation)
            rows.append(
                EpochRow(epoch=0, images_seen=0, validation_loss=loss, validation_accuracy=accuracy)
            )
        told = False
        while (epoch := len(rows)) <= (total := _planned_epochs(rows, settings)):
            if total > settings.epochs and not told:
                observer.say(_unconverged(settings))
                told = True
            done = done or trainer.train(1.0)
            looks = epoch % settings.evaluate_every == 0 or epoch in (settings.epochs, total)
            with keeper.held(capture):
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
            done = None
            observer.say(_line(rows[-1], total))
        keeper.done(capture)
    asked = settings.max_epochs > settings.epochs
    return Finetuned(
        trainer.result.eval(), tuple(rows), has_converged(rows, settings) if asked else None
    )


def has_converged(rows: Sequence[EpochRow], settings: FinetuneSettings) -> bool:
    """Say whether validation accuracy had stopped rising by epoch `settings.epochs`.

    It has if the mean over the last `convergence_window` epochs is at most `convergence_points`
    percentage points above the mean over as many epochs before. Epochs that were not looked at do
    not count.

    Args:
        rows: of at least the first `settings.epochs` epochs.
        settings: window and points.
    """
    window, end = settings.convergence_window, settings.epochs
    late = _mean_accuracy(rows, end - window, end)
    early = _mean_accuracy(rows, end - 2 * window, end - window)
    return late - early <= settings.convergence_points


def _mean_accuracy(rows: Sequence[EpochRow], after: int, last: int) -> float:
    seen = [
        row.validation_accuracy
        for row in rows
        if after < row.epoch <= last and row.validation_accuracy is not None
    ]
    return sum(seen) / len(seen)


def _planned_epochs(rows: Sequence[EpochRow], settings: FinetuneSettings) -> int:
    if settings.max_epochs <= settings.epochs or len(rows) <= settings.epochs:
        return settings.epochs
    return settings.epochs if has_converged(rows, settings) else settings.max_epochs


def _unconverged(settings: FinetuneSettings) -> str:
    return (
        f"not converged: validation accuracy rose by more than {settings.convergence_points:g}"
        f" points between the last two windows of {settings.convergence_window} epochs; going on to"
        f" epoch {settings.max_epochs}"
    )


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
