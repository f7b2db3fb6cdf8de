"""Training that is stopped and goes on gives the same bits as training that is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.state.interrupt import run_in_pieces
from tests.training.small import classified, classified_stream, recipe, same, small_network, weights
from tinygrow.settings.training import AugmentationSettings, FinetuneSettings
from tinygrow.state.keeper import Keeper
from tinygrow.training.batches import TrainingStream
from tinygrow.training.finetune import Finetuned, finetune
from tinygrow.training.loop import Trainer

AUGMENTED = AugmentationSettings(crop_padding=1, flip="random", cutout=2)


def finetuned(settings: FinetuneSettings, keeper: Keeper) -> Finetuned:
    stream = TrainingStream(classified(40), settings.training.augmentation, seed=6)
    return finetune(small_network(), stream, classified(12, seed=5), settings, keeper=keeper)


def timeless(done: Finetuned) -> list[Any]:
    return [replace(row, seconds=0.0, images_per_second=None) for row in done.rows]


@pytest.mark.parametrize("points", [1, 3, 8])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.9, "nesterov": True, "ema": 0.9, "schedule": "cosine"},
        {"optimizer": "adamw", "learning_rate": 0.01, "ema": 0.5, "batch_size": 7},
        {"precision": "bfloat16", "label_smoothing": 0.1, "weight_decay": 0.01},
        {"augmentation": AugmentationSettings(crop_padding=1, flip="alternating")},
    ],
    ids=["plain", "nesterov", "adamw", "bfloat16", "alternating"],
)
def test_every_point_of_a_training_can_be_stopped_at(
    tmp_path: Path, changes: dict[str, Any], points: int
) -> None:
    training = recipe(**{"learning_rate": 0.05, "augmentation": AUGMENTED} | changes)
    settings = FinetuneSettings(epochs=3, evaluate_every=2, training=training)
    whole = finetuned(settings, Keeper())
    pieces, stops = run_in_pieces(
        tmp_path / "s", lambda keeper: finetuned(settings, keeper), points
    )
    assert stops >= 2
    assert same(weights(pieces.network), weights(whole.network))
    assert timeless(pieces) == timeless(whole)


def test_what_draws_from_the_global_generator_goes_on_as_well() -> None:
    def trainer() -> Trainer:
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
        nn.init.ones_(network[2].weight)
        return Trainer(network, classified_stream(40), recipe(), total_epochs=1.0)

    before = torch.get_rng_state()
    try:
        torch.manual_seed(1)
        one = trainer()
        one.train(0.4)
        state = one.state()
        one.train(0.6)
        two = trainer()
        two.restore(state, two.network)
        two.train(0.6)
    finally:
        torch.set_rng_state(before)
    assert same(weights(one.network), weights(two.network))


def test_a_state_stays_as_it_was_while_training_goes_on() -> None:
    settings = recipe(momentum=0.9, ema=0.5, learning_rate=0.1)
    trainer = Trainer(small_network(), classified_stream(40), settings, total_epochs=9.0)
    trainer.train(0.5)
    state = trainer.state()
    again = Trainer(small_network(), classified_stream(40), settings, total_epochs=9.0)
    for _ in range(2):  # the first of them trains on what it was given
        again.restore(state, small_network())
        again.train(0.5)
    trainer.train(0.5)
    assert same(weights(again.network), weights(trainer.network))
    assert again.average is not None and trainer.average is not None
    assert same(weights(again.average), weights(trainer.average))
