import csv
import io
import math

import pytest
import torch

from tests.training.small import classified, classified_stream, recipe, same, small_network, weights
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.settings.training import FinetuneSettings
from tinygrow.training.evaluate import evaluate
from tinygrow.training.finetune import (
    EpochRow,
    Finetuned,
    epochs_to_csv,
    finetune,
    has_converged,
)

VALIDATION = classified(12, seed=5)


class Recorder(Observer):
    def __init__(self) -> None:
        self.begun: list[tuple[str, int, str]] = []
        self.images = 0
        self.ended = 0
        self.lines: list[str] = []

    def begin(self, title: str, total: int, unit: str) -> None:
        self.begun.append((title, total, unit))

    def advance(self, count: int = 1, **facts: float) -> None:
        self.images += count

    def end(self) -> None:
        self.ended += 1

    def say(self, line: str) -> None:
        self.lines.append(line)


def run(epochs: int, *, evaluate_every: int = 1, **changes: object) -> Finetuned:
    settings = FinetuneSettings(
        epochs=epochs, evaluate_every=evaluate_every, training=recipe(**changes)
    )
    return finetune(small_network(), classified_stream(40), VALIDATION, settings)


def test_row_0_is_the_network_before() -> None:
    first = run(1).rows[0]
    loss, accuracy = evaluate(small_network(), VALIDATION)
    assert first == EpochRow(
        epoch=0, images_seen=0, validation_loss=loss, validation_accuracy=accuracy
    )


def test_one_row_an_epoch() -> None:
    done = run(3, learning_rate=0.1, momentum=0.9, schedule="triangular")
    rows = done.rows[1:]
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert [row.images_seen for row in rows] == [40, 80, 120]
    assert [row.learning_rate for row in rows] == pytest.approx(
        [0.1 * (1 - (40 * epoch - 8) / 120) for epoch in (1, 2, 3)]
    )
    assert all(row.seconds > 0 for row in rows)
    for row in rows:
        assert row.images_per_second == pytest.approx(40 / row.seconds)
        assert row.train_loss is not None and 0 < row.train_loss < 10
        assert row.train_accuracy is not None and 0 <= row.train_accuracy <= 100
    loss, accuracy = evaluate(done.network, VALIDATION)
    assert (rows[-1].validation_loss, rows[-1].validation_accuracy) == (loss, accuracy)
    assert not done.network.training


def test_validation_is_looked_at_when_asked_and_at_the_end() -> None:
    looks = [row.validation_loss is not None for row in run(5, evaluate_every=2).rows]
    assert looks == [True, False, True, False, True, True]


def test_validation_decides_nothing() -> None:
    often, never = run(3), run(3, evaluate_every=100)
    assert same(weights(often.network), weights(never.network))


def test_the_moving_average_is_what_is_kept_and_measured() -> None:
    done, plain = run(2, ema=0.9), run(2)
    assert not same(weights(done.network), weights(plain.network))
    assert done.rows[-1].validation_loss == evaluate(done.network, VALIDATION)[0]
    assert done.rows[-1].train_loss == plain.rows[-1].train_loss


def test_no_epochs_leave_the_network_as_it_was() -> None:
    done = run(0)
    assert len(done.rows) == 1
    assert same(weights(done.network), weights(small_network()))
    assert not done.network.training


@pytest.mark.parametrize("batch_size", [7, 39, 500])
def test_image_passes_whatever_the_batch_size(batch_size: int) -> None:
    last = run(3, batch_size=batch_size).rows[-1]
    assert abs(last.images_seen - 120) <= 0.5 * min(batch_size, 40)
    assert last.train_loss is not None and math.isfinite(last.train_loss)


def test_the_observer_hears_steps_and_epochs() -> None:
    observer = Recorder()
    settings = FinetuneSettings(epochs=2, evaluate_every=2, training=recipe())
    finetune(small_network(), classified_stream(40), VALIDATION, settings, observer=observer)
    assert observer.begun == [("finetune", 80, "images")]
    assert observer.images == 80 and observer.ended == 1
    assert len(observer.lines) == 2
    assert observer.lines[0].startswith("epoch 1/2 lr 0.01 loss ")
    assert "validation" not in observer.lines[0] and "validation" in observer.lines[1]


def test_divergence_is_an_expected_failure() -> None:
    with pytest.raises(TinygrowError, match="diverged"):
        run(5, learning_rate=1e20)


def test_same_seed_same_network() -> None:
    torch.manual_seed(1)
    first = run(2)
    torch.manual_seed(2)
    assert same(weights(first.network), weights(run(2).network))


def test_csv() -> None:
    rows = (
        EpochRow(epoch=0, images_seen=0, validation_loss=2.5, validation_accuracy=10.0),
        EpochRow(epoch=1, images_seen=40, learning_rate=0.1, train_loss=1.0, seconds=2.0),
    )
    first, second = csv.DictReader(io.StringIO(epochs_to_csv(rows)))
    assert list(first) == [
        "epoch",
        "images_seen",
        "learning_rate",
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "seconds",
        "images_per_second",
    ]
    assert (first["epoch"], first["learning_rate"], first["validation_loss"]) == ("0", "", "2.5")
    assert (second["learning_rate"], second["validation_loss"], second["seconds"]) == (
        "0.1",
        "",
        "2",
    )


# --- convergence


def accuracies(*values: float | None) -> list[EpochRow]:
    return [
        EpochRow(epoch=epoch, images_seen=0, validation_accuracy=value)
        for epoch, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "converged"),
    [
        ((0, 50, 50, 50, 50, 50, 50), True),
        ((0, 50, 50, 50, 51, 51, 51), True),  # exactly the allowed point
        ((0, 50, 50, 50, 51, 51, 51.01), False),
        ((0, 90, 90, 90, 20, 20, 20), True),  # falling is no rising
        ((0, None, 50, None, 51, None, 51.5), False),  # not looked at
        ((0, 50, 50, 50, 50, 50, 50, 99, 99), True),  # epochs behind the decision do not count
    ],
)
def test_training_has_converged_when_accuracy_no_longer_rises(
    values: tuple[float | None, ...], converged: bool
) -> None:
    settings = FinetuneSettings(
        epochs=6, max_epochs=12, convergence_window=3, convergence_points=1.0, training=recipe()
    )
    assert has_converged(accuracies(*values), settings) == converged


@pytest.mark.parametrize("points", [1000.0, 0.0])
def test_training_goes_on_where_it_has_not_converged(points: float) -> None:
    settings = FinetuneSettings(
        epochs=4,
        max_epochs=7,
        convergence_window=2,
        convergence_points=points,
        training=recipe(learning_rate=0.02),
    )
    observer = Recorder()
    done = finetune(small_network(), classified_stream(40), VALIDATION, settings, observer=observer)
    converged = has_converged(done.rows, settings)
    assert converged == (points > 0)  # accuracy does rise in the first four epochs
    assert done.converged is converged
    assert done.rows[-1].epoch == (4 if converged else 7)
    told = [line for line in observer.lines if line.startswith("not converged")]
    assert len(told) == (0 if converged else 1)


def test_convergence_is_not_asked_for_where_training_cannot_go_on() -> None:
    assert run(2).converged is None
