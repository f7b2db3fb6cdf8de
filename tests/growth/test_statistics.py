from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.growth import oracle
from tests.growth.scenes import (
    EXACT,
    SITE,
    PairNet,
    conv_pair,
    desired_update_alone,
    identity,
    linear_pair,
    perceptron,
    site_of,
)
from tinygrow.growth import moments
from tinygrow.growth.bottleneck import best_update
from tinygrow.growth.sites import sites_of
from tinygrow.growth.statistics import (
    apply_update,
    batch_statistics,
    desired_update,
    neuron_moments,
    update_moments,
)

# A few hundred float64 products, summed in another order.
CLOSE = {"rtol": 1e-11, "atol": 1e-12}

GEOMETRIES = {
    f"stride {s1} {s2}, padding {p1} {p2}": (
        {"kernel_size": 3, "stride": s1, "padding": p1},
        {"kernel_size": 3, "stride": s2, "padding": p2},
    )
    for s1 in (1, 2)
    for p1 in (0, 1)
    for s2 in (1, 2)
    for p2 in (0, 1)
} | {
    "even kernels": ({"kernel_size": 2, "padding": 0}, {"kernel_size": 4, "padding": 2}),
    "rectangular": (
        {"kernel_size": (1, 3), "padding": (0, 1)},
        {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)},
    ),
    "dilated": (
        {"kernel_size": 3, "dilation": (2, 1), "padding": 1},
        {"kernel_size": 3, "dilation": (1, 2), "padding": 2},
    ),
    "1x1": ({"kernel_size": 1, "padding": 0}, {"kernel_size": 1, "padding": 0}),
    "without biases": ({"bias": False}, {"bias": False}),
}


def geometry_pair(name: str, normed: bool = False) -> tuple[PairNet, tuple]:
    first, second = GEOMETRIES[name]
    # 8x9 keeps at least 2x2 outputs behind two strides without padding.
    return conv_pair(images=3, size=(8, 9), first=first, second=second, normed=normed)


def assert_close(value: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(value.numpy(), expected, **CLOSE)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_desired_update_is_each_images_own_gradient(kind: str) -> None:
    network, batch = linear_pair() if kind == "linear" else conv_pair()

    x, h, target = desired_update(network, SITE, batch)

    torch.testing.assert_close(target, desired_update_alone(network, batch), **CLOSE)
    torch.testing.assert_close(x, batch[0], rtol=0, atol=0)
    torch.testing.assert_close(h, network.hidden(batch[0]).detach(), rtol=0, atol=0)


def test_desired_update_is_n_times_the_gradient_of_the_mean_loss_before_batch_norm() -> None:
    network, (x, y) = conv_pair(normed=True)
    with batch_statistics(network):
        _, _, target = desired_update(network, site_of(network), (x, y))

    def normalized(z: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        mean = z.mean((0, 2, 3), keepdim=True)
        variance = (z - mean).square().mean((0, 2, 3), keepdim=True)
        scale, shift = norm.weight[:, None, None], norm.bias[:, None, None]
        return (z - mean) / (variance + norm.eps).sqrt() * scale + shift

    hidden = torch.tanh(normalized(network.first(x), network.norm))
    raw = network.second(hidden).detach().requires_grad_()
    logits = network.head(torch.tanh(normalized(raw, network.norm2)).flatten(1))
    mean_loss = -torch.log_softmax(logits, 1)[torch.arange(len(y)), y].mean()
    (gradient,) = torch.autograd.grad(mean_loss, raw)
    torch.testing.assert_close(target, -len(y) * gradient, **CLOSE)

    # tiny.md 1.2: no mean in any channel, and (up to eps) none of the normalised output in it.
    assert target.mean((0, 2, 3)).abs().max() < 1e-14
    output = raw.detach() - raw.detach().mean((0, 2, 3), keepdim=True)
    cosine = (target * output).sum((0, 2, 3)) / (target.norm() * output.norm())
    assert cosine.abs().max() < 1e-4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_desired_update_of_logits_is_label_minus_probability(smoothing: float) -> None:
    network, architecture = perceptron((4,))
    network.double()
    x, y = torch.randn(7, 3, 8, 8, dtype=torch.float64), torch.randint(3, (7,))

    _, _, target = desired_update(network, sites_of(architecture)[-1], (x, y), smoothing)

    wanted = (1 - smoothing) * F.one_hot(y, 3).double() + smoothing / 3
    torch.testing.assert_close(target, wanted - network(x).detach().softmax(1), **CLOSE)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_S_and_N_equal_the_sums_over_positions_and_taps(name: str) -> None:
    # Acceptance check C.
    network, batch = geometry_pair(name)

    moments = neuron_moments(network, SITE, [batch], None, EXACT)

    target = desired_update_alone(network, batch)
    S, N = oracle.neuron_moments(batch[0], target, network.first, network.second)
    assert_close(moments.S, S)
    assert_close(moments.N, N)
    assert moments.images == len(batch[0])


@pytest.mark.parametrize("name", GEOMETRIES)
def test_S1_and_M_equal_the_sums_over_positions(name: str) -> None:
    network, batch = geometry_pair(name)

    moments = update_moments(network, SITE, [batch], EXACT)

    h, target = network.hidden(batch[0]), desired_update_alone(network, batch)
    S1, M, power = oracle.update_moments(h, target, network.second)
    assert_close(moments.S1, S1)
    assert_close(moments.M, M)
    assert moments.power == pytest.approx(power, rel=1e-12)
    assert moments.images == len(batch[0])


def test_N_is_the_weight_gradient_of_a_convolution_of_the_patches() -> None:
    # tiny.md 1.6: the second exact form, with autograd instead of loops.
    network, batch = geometry_pair("stride 1 2, padding 1 1")
    moments = neuron_moments(network, SITE, [batch], None, EXACT)

    geometry = oracle.Geometry.of(network.first)
    columns = torch.from_numpy(oracle.im2col(batch[0].numpy(), geometry))
    hidden = geometry.output_size(tuple(batch[0].shape[2:]))
    maps = columns.unflatten(2, hidden)
    weight = torch.zeros(4, maps.shape[1], 3, 3, dtype=torch.float64, requires_grad=True)
    outputs = F.conv2d(maps, weight, None, network.second.stride, network.second.padding)
    (outputs * desired_update_alone(network, batch)).sum().backward()
    expected = weight.grad.flatten(2).transpose(0, 1).flatten(1) / len(batch[0])
    torch.testing.assert_close(moments.N, expected, **CLOSE)


def test_linear_moments_are_averages_of_outer_products() -> None:
    network, batch = linear_pair()
    target = desired_update_alone(network, batch)
    ones = torch.ones(len(target), 1, dtype=torch.float64)
    b = torch.cat([batch[0], ones], 1)
    h = torch.cat([network.hidden(batch[0]).detach(), ones], 1)

    neurons = neuron_moments(network, SITE, [batch], None, EXACT)
    update = update_moments(network, SITE, [batch], EXACT)

    torch.testing.assert_close(neurons.S, b.T @ b / len(b), **CLOSE)
    torch.testing.assert_close(neurons.N, b.T @ target / len(b), **CLOSE)
    torch.testing.assert_close(update.S1, h.T @ h / len(b), **CLOSE)
    torch.testing.assert_close(update.M, h.T @ target / len(b), **CLOSE)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_what_is_left_after_the_best_update_does_not_correlate_with_the_inputs(kind: str) -> None:
    # Acceptance check B.
    network, batch = linear_pair() if kind == "linear" else conv_pair()
    moments = update_moments(network, SITE, [batch], EXACT)
    delta = best_update(moments.S1, moments.M, 1e-12)

    h, target = network.hidden(batch[0]), desired_update_alone(network, batch)
    left = torch.from_numpy(oracle.projected(h, target, network.second, delta.numpy()))
    _, M, _ = oracle.update_moments(h, left, network.second)
    assert np.abs(M).max() < 1e-12
    # The same residual as the library's own product, for a linear layer and a convolution.
    moved = apply_update(network.second, h.detach(), delta)
    torch.testing.assert_close(target - moved, left, **CLOSE)


@pytest.mark.parametrize("name", ["stride 1 1, padding 1 1", "stride 1 2, padding 1 0"])
def test_projected_N_comes_from_the_projected_desired_update(name: str) -> None:
    network, batch = geometry_pair(name)
    moments = update_moments(network, SITE, [batch], EXACT)
    delta = best_update(moments.S1, moments.M, 1e-12)

    projected = neuron_moments(network, SITE, [batch], delta, EXACT)

    h, target = network.hidden(batch[0]), desired_update_alone(network, batch)
    left = torch.from_numpy(oracle.projected(h, target, network.second, delta.numpy()))
    S, N = oracle.neuron_moments(batch[0], left, network.first, network.second)
    assert_close(projected.S, S)
    assert_close(projected.N, N)


def test_projected_N_is_M_prev_minus_the_cross_moment_times_the_update() -> None:
    # tiny.md 1.4: N = M_prev - C dW^T; and without a projection N is M_prev.
    network, batch = linear_pair()
    moments = update_moments(network, SITE, [batch], EXACT)
    delta = best_update(moments.S1, moments.M, 1e-12)
    ones = torch.ones(len(batch[0]), 1, dtype=torch.float64)
    b = torch.cat([batch[0], ones], 1)
    h = torch.cat([network.hidden(batch[0]).detach(), ones], 1)
    target = desired_update_alone(network, batch)
    M_prev, C = b.T @ target / len(b), b.T @ h / len(b)

    projected = neuron_moments(network, SITE, [batch], delta, EXACT)
    raw = neuron_moments(network, SITE, [batch], None, EXACT)

    torch.testing.assert_close(projected.N, M_prev - C @ delta.T, **CLOSE)
    torch.testing.assert_close(raw.N, M_prev, **CLOSE)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_N_is_the_same_where_the_gram_is_left_out(kind: str) -> None:
    network, batch = linear_pair() if kind == "linear" else conv_pair()

    both = neuron_moments(network, SITE, [batch], None, EXACT)
    alone = neuron_moments(network, SITE, [batch], None, EXACT, gram=False)

    assert torch.equal(alone.N, both.N)
    assert alone.S.shape == (0, 0)
    assert alone.images == both.images


def test_a_linear_network_leaves_nothing_for_new_neurons() -> None:
    # Acceptance check G: five inputs, six hidden units: new units add nothing to linear ones.
    network, batch = linear_pair(widths=(5, 6, 4), activation=identity)
    moments = update_moments(network, SITE, [batch], EXACT)
    delta = best_update(moments.S1, moments.M, 1e-12)

    projected = neuron_moments(network, SITE, [batch], delta, EXACT)
    raw = neuron_moments(network, SITE, [batch], None, EXACT)

    assert projected.N.abs().max() < 1e-12
    assert raw.N.abs().max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stride", [1, 2])
def test_chunks_do_not_change_the_moments(
    dtype: str, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batch = conv_pair(
        images=6, channels=(8, 3, 2), size=(64, 64), first={"stride": stride}
    )
    network.float()
    batch = batch[0].float(), batch[1]
    sizes: list[int] = []
    name = "add_correlation" if stride == 1 else "patches"
    original = getattr(moments, name)

    def counted(one: Any, two: Any, *rest: Any, **named: Any) -> Any:
        sizes.append(len(two))
        return original(one, two, *rest, **named)

    monkeypatch.setattr(moments, name, counted)
    small = replace(EXACT, dtype=dtype, chunk_megabytes=1)
    large = replace(EXACT, dtype=dtype, chunk_megabytes=4096)

    whole = neuron_moments(network, SITE, [batch], None, large)
    assert max(sizes) == 6
    sizes.clear()
    chunked = neuron_moments(network, SITE, [batch], None, small)
    assert max(sizes) < 6
    # Sums of 20,000 products in the working precision, cut at other places.
    close = {"rtol": 1e-4, "atol": 1e-2} if dtype == "float32" else CLOSE
    torch.testing.assert_close(chunked.S, whole.S, **close)
    torch.testing.assert_close(chunked.N, whole.N, **close)
    h_chunked = update_moments(network, SITE, [batch] * 2, small)
    h_whole = update_moments(network, SITE, [batch] * 2, large)
    torch.testing.assert_close(h_chunked.S1, h_whole.S1, **close)
    torch.testing.assert_close(h_chunked.M, h_whole.M, **close)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_mini_batches_stream_to_the_moments_of_one_big_batch(kind: str) -> None:
    network, (x, y) = linear_pair(9) if kind == "linear" else conv_pair(9)
    parts = list(zip(x.split([4, 3, 2]), y.split([4, 3, 2]), strict=True))

    update = [update_moments(network, SITE, b, EXACT) for b in (parts, [(x, y)])]
    neurons = [neuron_moments(network, SITE, b, None, EXACT) for b in (parts, [(x, y)])]

    assert update[0].images == neurons[0].images == 9
    assert update[0].power == pytest.approx(update[1].power, rel=1e-12)
    for a, b in (
        (update[0].S1, update[1].S1),
        (update[0].M, update[1].M),
        (neurons[0].S, neurons[1].S),
        (neurons[0].N, neurons[1].N),
    ):
        torch.testing.assert_close(a, b, **CLOSE)


def test_moments_are_divided_by_images_not_by_positions() -> None:
    # tiny.md pitfall 2: the entry of the two ones counts the reads of all positions.
    network, batch = conv_pair(images=4, size=(4, 4))

    moments = neuron_moments(network, SITE, [batch], None, EXACT)

    assert float(moments.S[-1, -1]) == 4 * 9 + 8 * 6 + 4 * 4


def test_float32_moments_are_those_of_float64_to_rounding() -> None:
    network, (x, y) = conv_pair(images=8)
    network.float()
    batch = (x.float(), y)

    single = neuron_moments(network, SITE, [batch], None, replace(EXACT, dtype="float32"))
    double = neuron_moments(network, SITE, [batch], None, EXACT)
    update = update_moments(network, SITE, [batch], replace(EXACT, dtype="float32"))

    assert single.S.dtype == single.N.dtype == torch.float32
    assert double.S.dtype == double.N.dtype == update.S1.dtype == update.M.dtype == torch.float64
    # 240 float32 products an image; measured 2e-7 of the largest entry.
    for a, b in ((single.S, double.S), (single.N, double.N)):
        assert 0 < (a.double() - b).abs().max() < 1e-5 * b.abs().max()
