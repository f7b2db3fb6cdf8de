"""The estimation error of new neurons: ridge, agreement of halves, significance."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from tests.growth.scenes import conv_pair, random_units, resnet, site_of, stream
from tinygrow.errors import TinygrowError
from tinygrow.growth.bottleneck import optimal_neurons
from tinygrow.growth.halves import RIDGES, Halves, pooled, with_ridge
from tinygrow.growth.neurons.proposal import Request
from tinygrow.growth.neurons.tiny import propose
from tinygrow.growth.significance import gain_scores
from tinygrow.growth.sites import sites_of
from tinygrow.growth.statistics import NeuronMoments
from tinygrow.growth.surgery import NewUnits
from tinygrow.settings.growth import (
    GrowthSettings,
    RefinementSettings,
    SolverSettings,
    StatisticsSettings,
)
from tinygrow.training.batches import Batch

CUT = 1e-10


def regression(rows: int, noise: float, seed: int) -> NeuronMoments:
    """Return moments of a rank-2 linear map between 20 inputs and 6 outputs."""
    generator = torch.Generator().manual_seed(99)
    weights = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    weights = weights @ torch.randn(2, 6, generator=generator, dtype=torch.float64)
    generator.manual_seed(seed)
    x = torch.randn(rows, 20, generator=generator, dtype=torch.float64)
    v = x @ weights + noise * torch.randn(rows, 6, generator=generator, dtype=torch.float64)
    return NeuronMoments(x.T @ x / rows, x.T @ v / rows, rows)


def halves(rows: int, noise: float) -> Halves:
    return Halves(regression(rows, noise, 1), regression(rows, noise, 2))


def test_neurons_without_noise_keep_their_worth_and_noise_loses_it() -> None:
    assert halves(200, 1e-6).agreement(2, CUT) == pytest.approx(1.0, abs=1e-6)
    shares = [halves(rows, 20.0).agreement(2, CUT) for rows in (25, 100, 1600)]
    assert shares[0] < shares[1] < shares[2] < 1.0


def test_a_ridge_is_chosen_where_there_are_few_rows_for_much_noise() -> None:
    assert halves(22, 10.0).best_ridge(2, CUT) == RIDGES[-1]
    assert halves(400, 0.1).best_ridge(2, CUT) < RIDGES[-1]


def test_the_chosen_ridge_is_worth_most_on_the_other_half() -> None:
    """Against the objective written out: the best multiple of P lowers it by <P, N>^2 / P^T S P."""
    pair = halves(24, 4.0)
    worth = {}
    for ridge in RIDGES:
        worth[ridge] = 0.0
        for here, there in ((pair.one, pair.two), (pair.two, pair.one)):
            found = optimal_neurons(with_ridge(here.S, ridge), here.N, 2, CUT)
            product = found.alpha.T @ found.omega
            gain = float((product * there.N).sum())
            worth[ridge] += max(gain, 0.0) ** 2 / float(torch.trace(product.T @ there.S @ product))
    assert pair.best_ridge(2, CUT) == max(worth, key=worth.__getitem__)


def test_pooled_moments_are_those_of_all_images() -> None:
    one, two = regression(30, 1.0, 1), regression(90, 1.0, 2)
    both = pooled(one, two)
    assert both.images == 120
    torch.testing.assert_close(both.S, (30 * one.S + 90 * two.S) / 120)
    torch.testing.assert_close(both.N, (30 * one.N + 90 * two.N) / 120)


def request(statistics: StatisticsSettings, solver: SolverSettings, asked: list[int]) -> Request:
    network, architecture = resnet(middle=(2, 2))
    images = stream(512)

    def sample(count: int) -> Sequence[Batch]:
        asked.append(count)
        return images.sample(count, statistics.batch_size)

    return Request(
        network=network,
        site=sites_of(architecture)[1],
        count=3,
        sample=sample,
        available=512,
        settings=GrowthSettings(statistics=statistics, solver=solver),
        generator=torch.Generator().manual_seed(0),
    )


def test_a_measured_sample_doubles_until_the_halves_agree() -> None:
    common = StatisticsSettings(
        size="measured", min_images=64, max_images=256, batch_size=16, agreement=0.0
    )
    asked: list[int] = []
    content = propose(request(common, SolverSettings(), asked))
    assert asked[2:] == [64]
    asked.clear()
    never = propose(request(replace(common, agreement=1.0), SolverSettings(), asked))
    assert asked[2:] == [64, 64, 128]
    assert never.images - content.images == 192


def test_a_single_mini_batch_is_halved_too() -> None:
    one = StatisticsSettings(
        size="measured", min_images=64, max_images=128, batch_size=64, agreement=1.0
    )
    asked: list[int] = []
    found = propose(request(one, SolverSettings(), asked))
    assert asked[2:] == [64, 64]  # of the first, the halves do not agree
    assert found.images - asked[1] == 128


def test_halves_without_ridge_give_the_neurons_of_the_whole_sample() -> None:
    formula = StatisticsSettings(min_images=64, max_images=64, batch_size=16, dtype="float64")
    measured = replace(formula, size="measured", agreement=0.0)
    one, two = (propose(request(s, SolverSettings(), [])).neurons for s in (formula, measured))
    torch.testing.assert_close(two.singular_values, one.singular_values)
    torch.testing.assert_close(
        two.alpha.T @ two.omega, one.alpha.T @ one.omega, rtol=1e-6, atol=1e-9
    )


def test_shrinkage_makes_fan_in_smaller_on_a_small_sample() -> None:
    few = StatisticsSettings(min_images=32, max_images=32, batch_size=16, dtype="float64")
    plain, shrunk = (
        propose(request(few, SolverSettings(shrinkage=s), [])).neurons
        for s in ("none", "cross_validated")
    )
    assert float(shrunk.singular_values[0]) < float(plain.singular_values[0])


# --- significance


def test_scores_tell_a_useful_neuron_from_noise_and_from_a_harmful_one() -> None:
    network, (x, y) = conv_pair(images=240, activation=torch.relu)
    site = site_of(network)
    units = random_units(network, site, 1)
    batches = [(x[i::8], y[i::8]) for i in range(8)]
    # The fan-out that lowers the loss fastest, its opposite, and one that does nothing.
    h = torch.relu(torch.nn.functional.conv2d(x, units.fan_in, units.bias, padding=1))
    a = network.second(network.hidden(x)).detach().requires_grad_()
    gradient = torch.autograd.grad(torch.nn.functional.cross_entropy(network.tail(a), y), a)[0]
    best = -torch.nn.grad.conv2d_weight(h, units.fan_out.shape, gradient, padding=1)
    three = NewUnits(
        units.fan_in.repeat(3, 1, 1, 1),
        units.bias.repeat(3),
        torch.cat([best, -best, best * 0.0], 1).detach(),
    )
    scores = gain_scores(network, site, three, batches)
    assert scores[0] > 2 and scores[1] == -scores[0] and scores[2] == 0


def test_significance_needs_signs_that_are_settled() -> None:
    with pytest.raises(TinygrowError, match="significance"):
        RefinementSettings(significance=2.0)
