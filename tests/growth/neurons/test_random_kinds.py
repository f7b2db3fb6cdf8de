"""Random neurons that keep the function, or the variance."""

import copy
import math

import pytest
import torch

from tests.growth.neurons.scenes import request
from tests.growth.scenes import PairNet, conv_pair, linear_pair, site_of, token_pair
from tinygrow.growth.neurons import random_pairs, random_variance, random_zero
from tinygrow.growth.neurons.proposal import Request
from tinygrow.growth.neurons.random_variance import fan_out_scale
from tinygrow.growth.surgery import widen
from tinygrow.settings.growth import GrowthSettings
from tinygrow.training.batches import Batch


def scene(kind: str, images: int = 200) -> tuple[PairNet, Batch]:
    if kind == "linear":
        return linear_pair(images=images, activation=torch.relu)
    return conv_pair(images=images, activation=torch.relu, normed=kind == "normed")


def asked(network: PairNet, batch: Batch, count: int) -> Request:
    return request(network, site_of(network), batch, GrowthSettings(), count=count)


def rms(weights: torch.Tensor) -> float:
    return float(weights.detach().square().mean().sqrt())


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_new_weights_are_as_large_as_the_old(kind: str) -> None:
    network, batch = scene(kind)
    count = 400
    zero = random_zero.propose(asked(network, batch, count)).settled
    pairs = random_pairs.propose(asked(network, batch, count)).settled
    assert zero is not None and pairs is not None

    # A root mean square of n draws has a relative standard error of (2 n)^(-1/2).
    for units, draws in ((zero, count), (pairs, count // 2)):
        error = (2 * draws * network.first.weight[0].numel()) ** -0.5
        assert rms(units.fan_in) == pytest.approx(rms(network.first.weight), rel=4 * error)
        assert units.bias is not None and not units.bias.any()
    assert not zero.fan_out.any()
    error = (2 * pairs.fan_out.numel() / 2) ** -0.5
    assert rms(pairs.fan_out) == pytest.approx(rms(network.second.weight), rel=4 * error)


@pytest.mark.parametrize("count", [1, 4, 5])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_pairs_cancel_out(kind: str, count: int) -> None:
    network, batch = scene(kind)

    units = random_pairs.propose(asked(network, batch, count)).settled

    assert units is not None and len(units) == count
    pairs = count // 2
    fan_in, fan_out = units.fan_in, units.fan_out
    assert torch.equal(fan_in[:pairs], fan_in[count - pairs :])
    assert torch.equal(fan_out[:, :pairs], -fan_out[:, count - pairs :])
    assert (fan_out[:, :pairs] != 0).all()
    assert not fan_out[:, pairs : count - pairs].any()
    assert len(torch.unique(fan_in.flatten(1), dim=0)) == count - pairs


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("kind", ["linear", "conv", "normed"])
def test_the_variance_of_the_output_is_kept(kind: str, count: int) -> None:
    images = 8000 if kind == "linear" else 400
    network, (x, y) = scene(kind, images)
    network.train()
    half = images // 2
    fitted, fresh = x[:half], x[half:]
    old = network.first.weight.shape[0]
    asking = asked(network, (fitted, y[:half]), count)
    all_of_them = Request(
        **{
            name: getattr(asking, name) for name in Request.__dataclass_fields__ if name != "sample"
        },
        sample=lambda _: [(fitted, y[:half])],
    )

    units = random_variance.propose(all_of_them).settled

    wide = copy.deepcopy(network)
    assert units is not None
    widen(wide, site_of(network), units)
    kept = math.sqrt(old / (old + count))
    torch.testing.assert_close(wide.second.weight[:, :old], kept * network.second.weight)

    def variance(net: PairNet, images: torch.Tensor) -> float:
        outputs = net.second(net.hidden(images)).detach().transpose(0, 1).flatten(1)
        return float(outputs.var(1).sum())

    before, after = variance(network, fitted), variance(wide, fitted)
    assert after == pytest.approx(before, rel=1e-10)
    # On other images b is as good as the variances it was fitted to. A variance over n images has
    # a relative standard error of about (2 / n)^(1/2) (half of the images are within a map of
    # 30 correlated positions: counted as one each); four of them, of four variances.
    bound = 4 * math.sqrt(4 * 2 / half)
    assert variance(wide, fresh) == pytest.approx(variance(network, fresh), rel=bound)
    # Which is a test: without the factors the variance is another one.
    bare = copy.deepcopy(network)
    widen(bare, site_of(network), type(units)(units.fan_in, units.bias, units.fan_out))
    assert abs(variance(bare, fitted) / before - 1) > 1e-3


def test_the_variance_over_all_tokens_is_kept() -> None:
    network, (x, y) = token_pair(images=6)
    units = random_variance.propose(asked(network, (x, y), 3)).settled
    assert units is not None
    wide = copy.deepcopy(network)
    widen(wide, site_of(network), units)
    before, after = (
        float(net.second(net.hidden(x)).detach().flatten(0, 1).var(0).sum())
        for net in (network, wide)
    )
    assert after == pytest.approx(before, rel=1e-10)


@pytest.mark.parametrize("cross", [-0.4, 0.0, 0.7])
def test_the_scale_solves_for_the_variance(cross: float) -> None:
    a, variance, new = 0.8, 3.0, 0.5
    b = fan_out_scale(a, variance, new, cross)
    assert b > 0
    assert a**2 * variance + b**2 * new + 2 * a * b * cross == pytest.approx(variance, rel=1e-12)
    assert fan_out_scale(a, variance, 0.0, 0.0) == 0.0


def test_where_new_units_never_vary_nothing_makes_room_for_them() -> None:
    network, (x, y) = scene("linear")
    x = torch.zeros_like(x)
    units = random_variance.propose(asked(network, (x, y), 3)).settled
    assert units is not None and units.rescale is not None
    assert not units.fan_out.any()
    assert (units.rescale == 1).all()
