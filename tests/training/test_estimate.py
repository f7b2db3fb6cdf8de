"""Speeds are measured without a trace, and the estimate of fine-tuning adds up."""

from typing import Any

import pytest
import torch

from tests.training.small import (
    classified,
    classified_stream,
    recipe,
    same,
    small_network,
    weights,
)
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.settings.training import FinetuneSettings
from tinygrow.training import estimate as module
from tinygrow.training.estimate import (
    FinetuneEstimate,
    duration,
    estimate_finetune,
    forward_seconds,
    images_per_second,
    magnitude,
    rate,
)
from tinygrow.training.evaluate import evaluate
from tinygrow.training.finetune import finetune


@pytest.mark.parametrize("training", [True, False])
def test_network_stream_and_global_generator_are_left_as_they_were(training: bool) -> None:
    network, stream = small_network().train(training), classified_stream(40, seed=4)
    stream.next(7)
    other = classified_stream(40, seed=4)
    other.next(7)
    before, generator = weights(network), torch.get_rng_state()
    settings = recipe(learning_rate=0.1, momentum=0.9, ema=0.5)
    assert images_per_second(network, stream, settings, seconds=0.01) > 0
    assert forward_seconds(network, stream.images, 8, seconds=0.01) > 0
    whole = FinetuneSettings(epochs=2, training=settings)
    assert estimate_finetune(network, stream, whole, validation_images=9).seconds > 0
    assert same(weights(network), before)
    assert network.training == training
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(stream.next(40)[1], other.next(40)[1])


def test_a_recipe_that_diverges_can_still_be_timed() -> None:
    settings = recipe(learning_rate=1e20)
    assert images_per_second(small_network(), classified_stream(40), settings, seconds=0.02) > 0


@pytest.mark.parametrize("batch_size", [2, 39, 1000])
def test_any_batch_size(batch_size: int) -> None:
    settings = recipe(batch_size=batch_size, schedule="cosine")
    assert images_per_second(small_network(), classified_stream(40), settings, seconds=0.0) > 0
    assert forward_seconds(small_network(), classified(40), batch_size, seconds=0.0) > 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (7.6, "8 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (600, "10 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (360000, "100.0 h"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(7, "7.0e0"), (123_456, "1.2e5"), (2.67e15, "2.7e15"), (0, "0.0e0")]
)
def test_counts_in_words(count: float, words: str) -> None:
    assert magnitude(count) == words


@pytest.mark.parametrize(
    ("speed", "words"),
    [(0.1349, "0.13"), (4.24, "4.2"), (9.96, "10"), (31.4, "31"), (1250.2, "1,250")],
)
def test_speeds_in_words(speed: float, words: str) -> None:
    assert rate(speed) == words


# --- how long a step may take


class Clock:
    """A clock that only steps move, and the sizes of the steps."""

    def __init__(self, seconds_an_image: float) -> None:
        self.now = 0.0
        self.sizes: list[int] = []
        self._seconds = seconds_an_image

    def step(self, size: int) -> None:
        self.sizes.append(size)
        self.now += size * self._seconds

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds_an_image", "sizes"),
    [
        (0.001, [2, 2, 100, *[100] * 5]),  # a step to warm up, then as many as it takes
        (0.01, [2, 2, 100]),  # one step is long enough
        (0.5, [2, 2, 10]),  # a whole batch would take 50 s
        (30.0, [2, 2, 2]),
    ],
)
def test_long_steps_are_measured_on_fewer_images(
    monkeypatch: pytest.MonkeyPatch, seconds_an_image: float, sizes: list[int]
) -> None:
    clock = Clock(seconds_an_image)
    monkeypatch.setattr(module, "time", clock)
    assert module._speed(clock.step, 100, 0.45) == pytest.approx(1 / seconds_an_image)
    assert clock.sizes == sizes


# --- fine-tuning


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say 10 training images a second, and 100 of evaluation."""
    monkeypatch.setattr(module, "images_per_second", lambda *_: 10.0)
    monkeypatch.setattr(module, "forward_seconds", lambda *_: 0.01)


def estimated(done_images: int = 0, **settings: Any) -> FinetuneEstimate:
    return estimate_finetune(
        small_network(),
        classified_stream(40),
        FinetuneSettings(training=recipe(), **settings),
        validation_images=30,
        done_images=done_images,
    )


def looks_of_a_run(monkeypatch: pytest.MonkeyPatch, epochs: int, every: int) -> int:
    looks = []
    monkeypatch.setattr(
        "tinygrow.training.finetune.evaluate",
        lambda *arguments: looks.append(1) or evaluate(*arguments),
    )
    settings = FinetuneSettings(epochs=epochs, evaluate_every=every, training=recipe())
    finetune(small_network(), classified_stream(40), classified(30), settings)
    return len(looks)


@pytest.mark.usefixtures("speeds")
@pytest.mark.parametrize(("epochs", "every"), [(0, 1), (1, 1), (4, 1), (4, 2), (5, 2), (3, 9)])
def test_passes_are_those_of_a_run(
    monkeypatch: pytest.MonkeyPatch, epochs: int, every: int
) -> None:
    looks = looks_of_a_run(monkeypatch, epochs, every)
    estimate = estimated(epochs=epochs, evaluate_every=every)
    cost = count_multiply_adds(small_network(), (1, 4, 4))
    assert estimate.images == epochs * 40
    assert estimate.epochs == estimate.longest_epochs == epochs
    assert estimate.seconds_training == pytest.approx(epochs * 40 / 10)
    assert estimate.seconds_evaluation == pytest.approx(looks * 30 * 0.01)
    assert estimate.longest_seconds == pytest.approx(estimate.seconds)
    assert estimate.multiply_adds == cost * (3 * epochs * 40 + looks * 30)
    assert estimate.parameters == count_parameters(small_network())


@pytest.mark.usefixtures("speeds")
def test_what_is_left_of_a_run() -> None:
    estimate = estimated(epochs=5, evaluate_every=2, done_images=2 * 40 + 10)
    assert estimate.images == 3 * 40 - 10
    assert estimate.epochs == 2.8
    assert estimate.seconds_evaluation == pytest.approx(2 * 30 * 0.01)  # epochs 4 and 5
    over = estimated(epochs=5, evaluate_every=2, done_images=5 * 40)
    assert (over.images, over.seconds) == (0, 0.0)


@pytest.mark.usefixtures("speeds")
def test_training_that_may_go_on_is_told_with_its_longest() -> None:
    estimate = estimated(epochs=10, max_epochs=20, convergence_window=5)
    assert estimate.longest_epochs == 20
    assert estimate.longest_seconds == pytest.approx(20 * 40 / 10 + 21 * 30 * 0.01)
    assert estimate.seconds == pytest.approx(10 * 40 / 10 + 11 * 30 * 0.01)
    assert estimate.lines() == [
        f"fine-tuning on cpu: {count_parameters(small_network())} parameters, 10 epochs with 400"
        " image passes of training at 10 images/s (40 s), evaluation 3 s: about 43 s,"
        f" {magnitude(estimate.multiply_adds)} multiply-adds; up to 20 epochs, 86 s, if it has not"
        " converged by then"
    ]


@pytest.mark.usefixtures("speeds")
def test_training_of_a_fixed_length_in_words() -> None:
    (line,) = estimated(epochs=250, max_epochs=250).lines()
    assert line.startswith("fine-tuning on cpu: ")
    assert "250 epochs with 10,000 image passes" in line
    assert line.endswith("multiply-adds")
