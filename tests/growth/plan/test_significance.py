"""Significance of a gain: false alarms as often as the level says, real gains found."""

import math

import pytest
import torch
from torch import nn

from tests.growth.scenes import (
    EXACT,
    PairNet,
    conv_pair,
    desired_update_alone,
    linear_pair,
    random_units,
    site_of,
    token_pair,
    widened,
)
from tinygrow.growth.plan.measured import Pieces, _Finding, leading_neurons
from tinygrow.growth.plan.significance import image_gains, standard_errors, threshold
from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings
from tinygrow.training.batches import Batch

SETTINGS = GrowthSettings(statistics=EXACT, amplitude=AmplitudeSettings(images=64))


def labels_of(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Draw labels from what the network says: it has nothing left to learn but noise."""
    with torch.no_grad():
        return torch.multinomial(torch.softmax(network(x), 1), 1)[:, 0]


def significance(network: PairNet, teacher: nn.Module, images: int, count: int = 2) -> float:
    """Return the standard errors that neurons fitted to the teacher's labels reach."""

    def batch(size: int) -> Batch:
        x = torch.randn(size, 5, dtype=torch.float64)
        return x, labels_of(teacher, x)

    pieces = Pieces([batch(images)], [batch(images)], [batch(images)])
    site = site_of(network)
    (neurons,) = leading_neurons(network, [site], [count], pieces.fit, SETTINGS)
    return _Finding(network, site, neurons, pieces, SETTINGS).significance()


def test_noise_is_significant_as_often_as_the_level_says() -> None:
    trials, z = 200, 1.2816  # one-sided 10 %
    network, _ = linear_pair(activation=torch.relu, seed=1)
    found = sum(significance(network, network, 80) > z for _ in range(trials))
    # 20 are expected, with a standard deviation of 4.2.
    assert 8 <= found <= 32


def test_a_direction_that_is_there_is_found() -> None:
    network, _ = linear_pair(widths=(5, 1, 3), seed=1)
    with torch.no_grad():
        network.head.weight.mul_(4.0)  # so that labels are not all noise
    teacher = widened(network, random_units(network, site_of(network), 2).scaled(1.0, 6.0))
    assert all(significance(network, teacher, 200) > 3 for _ in range(10))


@pytest.mark.parametrize("kind", ["linear", "tokens", "convolution"])
def test_gains_are_those_of_every_image_by_itself(kind: str) -> None:
    scenes = {"linear": linear_pair, "tokens": token_pair, "convolution": conv_pair}
    network, batch = scenes[kind](images=5)
    site = site_of(network)
    units = random_units(network, site, 2)
    network.train()
    wide = widened(network, units)
    parts = [(batch[0][:3], batch[1][:3]), (batch[0][3:], batch[1][3:])]
    gains = image_gains(network, site, units, parts)

    target = desired_update_alone(network, batch)
    with torch.no_grad():
        added = wide.second(wide.hidden(batch[0])) - network.second(network.hidden(batch[0]))
    expected = (target * added).flatten(1).sum(1)
    assert gains.dtype == torch.float64
    assert torch.allclose(gains, expected, rtol=1e-9, atol=1e-12)
    assert network.training  # left as it was


def test_standard_errors() -> None:
    gains = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert standard_errors(gains) == pytest.approx(3.0 / (math.sqrt(14 / 3) / 2))
    assert standard_errors(-gains) == -standard_errors(gains)
    assert standard_errors(torch.zeros(5)) == 0.0


def test_the_level_is_shared_by_the_sites() -> None:
    def level(z: float) -> float:
        return 0.5 * math.erfc(z / math.sqrt(2))

    assert threshold(2.0, 1) == pytest.approx(2.0)
    for sites in (2, 8, 50):
        assert level(threshold(2.0, sites)) == pytest.approx(level(2.0) / sites)
