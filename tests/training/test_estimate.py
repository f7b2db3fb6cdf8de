import pytest
import torch

from tests.training.small import classified_stream, recipe, same, small_network, weights
from tinygrow.training.estimate import duration, images_per_second


@pytest.mark.parametrize("training", [True, False])
def test_network_stream_and_global_generator_are_left_as_they_were(training: bool) -> None:
    network, stream = small_network().train(training), classified_stream(40, seed=4)
    stream.next(7)
    other = classified_stream(40, seed=4)
    other.next(7)
    before, generator = weights(network), torch.get_rng_state()
    settings = recipe(learning_rate=0.1, momentum=0.9, ema=0.5)
    assert images_per_second(network, stream, settings, seconds=0.01) > 0
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
    assert images_per_second(small_network(), classified_stream(40), settings, seconds=0.0) >= 0


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
