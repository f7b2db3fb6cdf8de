from typing import Any

import pytest

from tests.settings.refusal import check_form, check_words, refused
from tinygrow.errors import SettingError
from tinygrow.settings.training import AugmentationSettings, FinetuneSettings, TrainingSettings


def test_form() -> None:
    for settings in (AugmentationSettings, TrainingSettings, FinetuneSettings):
        check_form(settings)
    for settings in (AugmentationSettings, TrainingSettings, FinetuneSettings):
        check_words(settings)


def test_the_default_is_the_papers_plain_sgd() -> None:
    settings = TrainingSettings()
    assert (settings.optimizer, settings.learning_rate, settings.momentum) == ("sgd", 0.01, 0.0)
    assert (settings.weight_decay, settings.batch_size, settings.ema) == (0.0, 32, 0.0)
    assert (settings.precision, FinetuneSettings().compile) == ("float32", "off")
    assert settings.augmentation == AugmentationSettings(crop_padding=4, flip="random", cutout=0)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("learning_rate", 0.0, "greater than 0"),
        ("learning_rate", -0.1, "greater than 0"),
        ("learning_rate", float("nan"), "greater than 0"),
        ("momentum", -0.1, "in [0, 1)"),
        ("momentum", 1.0, "in [0, 1)"),
        ("nesterov", True, "needs momentum > 0"),
        ("weight_decay", -1e-9, "at least 0"),
        ("batch_size", 1, "from 2 to 65536"),
        ("batch_size", 65_537, "from 2 to 65536"),
        ("warmup_epochs", -1.0, "at least 0"),
        ("label_smoothing", -0.1, "in [0, 1)"),
        ("label_smoothing", 1.0, "in [0, 1)"),
        ("ema", -0.1, "in [0, 1)"),
        ("ema", 1.0, "in [0, 1)"),
    ],
)
def test_ranges(name: str, value: Any, remedy: str) -> None:
    message = refused(TrainingSettings, name, value)
    assert repr(value) in message and remedy in message


@pytest.mark.parametrize("name", ["crop_padding", "cutout"])
def test_ranges_of_augmentation(name: str) -> None:
    for value in (-1, 4097):
        told = refused(AugmentationSettings, name, value)
        assert told == f"{name} is {value}; it must be from 0 to 4096"


def test_ranges_of_fine_tuning() -> None:
    assert "from 0 to 1000000" in refused(FinetuneSettings, "epochs", -1)
    assert "from 0 to 1000000" in refused(FinetuneSettings, "epochs", 1_000_001)
    assert "at least 1" in refused(FinetuneSettings, "evaluate_every", 0)
    assert FinetuneSettings(epochs=0).epochs == 0


@pytest.mark.parametrize("epochs", [0, 3])
def test_the_warm_up_must_fit_into_the_epochs(epochs: int) -> None:
    fits = TrainingSettings(warmup_epochs=float(epochs))
    assert FinetuneSettings(epochs=epochs, training=fits).training is fits
    longer = TrainingSettings(warmup_epochs=epochs + 0.5)
    words = rf"^training.warmup_epochs is {epochs}.5; it must not exceed epochs \({epochs}\)$"
    with pytest.raises(SettingError, match=words):
        FinetuneSettings(epochs=epochs, training=longer)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_epochs": -1}, "max_epochs is -1; it must be from 0 to 1000000"),
        ({"convergence_window": 0}, "convergence_window is 0; it must be at least 1"),
        ({"convergence_points": -0.1}, "convergence_points is -0.1; it must be at least 0"),
        (
            {"max_epochs": 20, "training": TrainingSettings(schedule="cosine")},
            "max_epochs is 20; above epochs (10) it needs training.schedule constant, not cosine",
        ),
        (
            {"max_epochs": 20, "convergence_window": 6},
            "convergence_window is 6; it must be from evaluate_every (1) to half of epochs (5)",
        ),
        (
            {"max_epochs": 20, "convergence_window": 2, "evaluate_every": 3},
            "convergence_window is 2; it must be from evaluate_every (3)",
        ),
    ],
)
def test_going_on_beyond_the_epochs(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingError) as caught:
        FinetuneSettings(**{"epochs": 10, "convergence_window": 5} | changes)
    assert str(caught.value).startswith(told)
    # Where training never goes on, its criterion is not looked at.
    assert FinetuneSettings(epochs=10, max_epochs=10, convergence_window=25).epochs == 10
