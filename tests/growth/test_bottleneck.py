from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import oracle
from tests.growth.scenes import (
    EXACT,
    SITE,
    PairNet,
    conv_pair,
    desired_update_alone,
    identity,
    linear_pair,
)
from tinygrow.errors import TinygrowError
from tinygrow.growth.bottleneck import (
    Neurons,
    best_update,
    bottleneck,
    gradmax_neurons,
    optimal_neurons,
)
from tinygrow.growth.statistics import neuron_moments, update_moments
from tinygrow.growth.surgery import as_units, widen

CUT = 1e-12
"""Keeps every direction of the well-conditioned moments here."""


def moments(p: int, q: int, condition: float = 10.0, seed: int = 0) -> tuple:
    """Return S with the given condition number and any N, in NumPy."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(p, p)))
    S = basis @ np.diag(np.geomspace(1.0, 1.0 / condition, p)) @ basis.T
    return 0.5 * (S + S.T), rng.normal(size=(p, q))


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(a) for a in arrays]


def product(neurons: Neurons) -> np.ndarray:
    return (neurons.alpha.T @ neurons.omega).numpy()


def solved(network: PairNet, batch: tuple, count: int, project: bool) -> tuple[Neurons, tuple]:
    """Return neurons from the network's own moments, and what they were fitted to."""
    update = update_moments(network, SITE, [batch], EXACT)
    delta = best_update(update.S1, update.M, CUT)
    pair = neuron_moments(network, SITE, [batch], delta if project else None, EXACT)
    target = desired_update_alone(network, batch)
    if project:
        h = network.hidden(batch[0])
        target = torch.from_numpy(oracle.projected(h, target, network.second, delta.numpy()))
    return optimal_neurons(pair.S, pair.N, count, CUT), target


def change_by_widening(
    network: PairNet, batch: tuple, neurons: Neurons, scale: float
) -> torch.Tensor:
    """Widen for good; return what that changed in the output of the second layer."""
    with torch.no_grad():
        before = network.second(network.hidden(batch[0]))
        units = as_units(neurons, network.first, network.second)
        widen(network, SITE, units.scaled(scale, scale))
        return network.second(network.hidden(batch[0])) - before


# --- the best move of the existing weights


@pytest.mark.parametrize("rank", [6, 3])
def test_best_update_is_the_pseudo_inverse_solution(rank: int) -> None:
    rng = np.random.default_rng(rank)
    b = rng.normal(size=(50, rank)) @ rng.normal(size=(rank, 6))
    v = rng.normal(size=(50, 4))
    S1, M = b.T @ b / 50, b.T @ v / 50

    delta = best_update(*tensors(S1, M), 1e-9)

    # Condition numbers below 1e3, float64.
    np.testing.assert_allclose(delta.numpy(), M.T @ np.linalg.pinv(S1, rcond=1e-9), atol=1e-11)
    residual = v - b @ np.linalg.lstsq(b, v, rcond=1e-9)[0]
    psi2 = bottleneck(float((v**2).sum() / 50), torch.from_numpy(M), delta)
    assert psi2 == pytest.approx((residual**2).sum() / 50, rel=1e-10)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_bottleneck_is_the_least_squares_residual_of_the_desired_update(kind: str) -> None:
    network, batch = linear_pair() if kind == "linear" else conv_pair()
    update = update_moments(network, SITE, [batch], EXACT)

    psi2 = bottleneck(update.power, update.M, best_update(update.S1, update.M, CUT))

    h, target = network.hidden(batch[0]), desired_update_alone(network, batch)
    columns = oracle.im2col(oracle.as_maps(h), oracle.Geometry.of(network.second))
    b = columns.transpose(0, 2, 1).reshape(-1, columns.shape[1])
    v = oracle.as_maps(target).transpose(0, 2, 3, 1).reshape(len(b), -1)
    residual = v - b @ np.linalg.lstsq(b, v, rcond=None)[0]
    assert psi2 == pytest.approx((residual**2).sum() / len(batch[0]), rel=1e-9)
    assert 0 < psi2 < update.power


def test_no_signal_means_no_update() -> None:
    delta = best_update(torch.zeros(3, 3), torch.zeros(3, 2), 1e-6)

    assert delta.shape == (2, 3)
    assert not delta.any()


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_overflow_is_named(bad: float) -> None:
    broken = torch.eye(3)
    broken[0, 1] = bad

    for call in (
        lambda: best_update(broken, torch.ones(3, 1), 1e-6),
        lambda: best_update(torch.eye(3), broken, 1e-6),
        lambda: optimal_neurons(broken, torch.ones(3, 1), 1, 1e-6),
        lambda: optimal_neurons(torch.eye(3), broken, 1, 1e-6),
    ):
        with pytest.raises(TinygrowError, match="inf or NaN"):
            call()


# --- the closed form of the new neurons


@pytest.mark.parametrize("condition", [10.0, 1e5])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("shape", [(12, 7), (7, 12)])
def test_rank_k_product_equals_the_inverse_root_and_svd(
    shape: tuple[int, int], scale: float, condition: float
) -> None:
    # Acceptance check E: any scale of S, and as badly conditioned as the default cut lets through.
    S, N = moments(*shape, condition=condition)
    S *= scale

    neurons = optimal_neurons(*tensors(S, N), 4, CUT)

    expected, values = oracle.rank_k_product(S, N, 4)
    # Rounding in S^(-1/2) grows with the root of the condition number.
    rtol = 1e-13 * condition
    np.testing.assert_allclose(neurons.spectrum.numpy(), values, rtol=rtol)
    np.testing.assert_allclose(product(neurons), expected, atol=100 * rtol * np.abs(expected).max())
    assert len(neurons.alpha) == len(neurons.omega) == len(neurons.singular_values) == 4
    assert torch.equal(neurons.singular_values, neurons.spectrum[:4])


def test_rank_k_product_equals_the_cholesky_and_eigen_solver() -> None:
    # tiny.md 1.4: X = S^-1 N, Q = N^T X = V diag(lambda^2) V^T.
    S, N = moments(12, 7)
    X = np.linalg.solve(S, N)
    squares, V = np.linalg.eigh(N.T @ X)
    leading = V[:, ::-1][:, :3]

    neurons = optimal_neurons(*tensors(S, N), 3, CUT)

    np.testing.assert_allclose(product(neurons), X @ leading @ leading.T, atol=1e-11)
    np.testing.assert_allclose(neurons.spectrum.numpy() ** 2, squares[::-1], rtol=1e-11)


def test_fan_in_and_fan_out_share_the_root_of_each_singular_value() -> None:
    S, N = moments(9, 6)

    neurons = optimal_neurons(*tensors(S, N), 6, CUT)

    lambdas = torch.diag(neurons.singular_values)
    close = {"rtol": 0, "atol": 1e-12}
    alpha, omega = neurons.alpha, neurons.omega
    torch.testing.assert_close(omega @ omega.T, lambdas, **close)
    torch.testing.assert_close(alpha @ torch.from_numpy(S) @ alpha.T, lambdas, **close)
    assert (neurons.singular_values.diff() < 0).all()


@given(p=st.integers(1, 8), q=st.integers(1, 8), count=st.integers(1, 10), seed=st.integers(0, 999))
def test_no_other_neurons_fit_better(p: int, q: int, count: int, seed: int) -> None:
    """The objective at the solution is its lower bound, and random moves only raise it."""
    S, N = moments(p, q, seed=seed)
    neurons = optimal_neurons(*tensors(S, N), count, CUT)

    def objective(W: np.ndarray) -> float:
        # (1/n) sum ||V - W^T b||^2 but for the constant (1/n) sum ||V||^2.
        return float(np.trace(W.T @ S @ W) - 2 * np.trace(W.T @ N))

    best = objective(product(neurons))
    scale = float((neurons.spectrum**2).sum())
    assert best == pytest.approx(-float((neurons.singular_values**2).sum()), abs=1e-9 * scale)
    assert len(neurons.alpha) == min(p, q, count)
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-1, 1.0):
        other = [
            t.numpy() + size * rng.normal(size=t.shape) for t in (neurons.alpha, neurons.omega)
        ]
        assert objective(other[0].T @ other[1]) >= best - 1e-9 * scale


@given(exponents=st.tuples(st.integers(-20, 20), st.integers(-20, 20)), seed=st.integers(0, 999))
def test_units_of_inputs_and_targets_only_rescale_the_neurons(
    exponents: tuple[int, int], seed: int
) -> None:
    """With inputs times c and targets times s: lambda times s, alpha omega^T times s / c."""
    c, s = 2.0 ** exponents[0], 2.0 ** exponents[1]
    S, N = moments(6, 5, seed=seed)

    plain = optimal_neurons(*tensors(S, N), 3, 1e-6)
    scaled = optimal_neurons(*tensors(c * c * S, c * s * N), 3, 1e-6)

    # Powers of two: only the iterations inside LAPACK may round differently.
    np.testing.assert_allclose(scaled.spectrum.numpy(), s * plain.spectrum.numpy(), rtol=1e-10)
    expected = product(plain) * s / c
    np.testing.assert_allclose(product(scaled), expected, atol=1e-9 * np.abs(expected).max())


def test_fewer_neurons_come_back_than_there_are_directions() -> None:
    S, N = moments(5, 3)
    N[:, 2] = N[:, 0]

    neurons = optimal_neurons(*tensors(S, N), 4, CUT)
    nothing = optimal_neurons(*tensors(S, 0 * N), 4, CUT)

    assert len(neurons.spectrum) == len(neurons.alpha) == 2
    assert neurons.alpha.shape == (2, 5)
    assert neurons.omega.shape == (2, 3)
    assert nothing.alpha.shape == (0, 5)
    assert nothing.omega.shape == (0, 3)
    assert len(nothing.spectrum) == 0


def test_fan_in_of_a_rank_deficient_problem_does_not_depend_on_the_precision() -> None:
    # Acceptance check F: 8 images in 19 dimensions.
    network, (x, y) = linear_pair(8, widths=(19, 4, 6))
    network.float()
    batch = (x.float(), y)
    norms, uncut = [], []
    for dtype in ("float32", "float64"):
        pair = neuron_moments(network, SITE, [batch], None, replace(EXACT, dtype=dtype))
        norms.append(float(optimal_neurons(pair.S, pair.N, 6, 1e-6).alpha.norm()))
        uncut.append(float(optimal_neurons(pair.S, pair.N, 6, 1e-14).alpha.norm()))

    # float32 moments are exact to 1e-6 of the largest entry and S has a condition number of 20.
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    # What the cut is for: without it rounding in the null space of S enters the neurons.
    assert uncut[0] > 1.5 * norms[0]


# --- what the neurons buy (tiny.md 1.5)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_with_identity_activations_the_power_drops_by_the_squared_singular_values(
    count: int,
) -> None:
    # Acceptance check A at amplitude 1, on a network that is widened for good.
    network, batch = linear_pair(widths=(5, 2, 7), activation=identity)
    neurons, target = solved(network, batch, count, project=True)

    change = change_by_widening(network, batch, neurons, 1.0)

    drop = oracle.inner(target, target) - oracle.inner(target - change, target - change)
    gained = float(neurons.singular_values.square().sum())
    assert drop == pytest.approx(gained, rel=1e-10)
    assert gained > 1e-4


@pytest.mark.parametrize(
    ("activation", "slope", "rel"),
    # At amplitude 1e-7 tanh is linear to 1e-7; GELU's curvature enters with the root, 3e-4.
    [(torch.tanh, 1.0, 1e-5), (F.gelu, 0.5, 5e-3)],
)
def test_first_order_gain_is_the_slope_at_zero_times_the_squared_singular_values(
    activation: Callable, slope: float, rel: float
) -> None:
    # Acceptance check A, (1.5b).
    network, batch = linear_pair(activation=activation)
    neurons, target = solved(network, batch, 4, project=True)
    gamma = 1e-7

    change = change_by_widening(network, batch, neurons, gamma**0.5)

    gained = float(neurons.singular_values.square().sum())
    assert oracle.inner(target, change) / (gamma * gained) == pytest.approx(slope, rel=rel)


@pytest.mark.parametrize(
    ("activation", "slopes"),
    # SELU: 1.0507 above zero, 1.0507 * 1.6733 below.
    [(torch.relu, 1.0), (F.selu, 1.0507009873554805 * (1 + 1.6732632423543772))],
)
def test_both_signs_together_gain_the_sum_of_the_two_slopes(
    activation: Callable, slopes: float
) -> None:
    # Acceptance check A, (1.5c): for ReLU the two signs sum to all of the squared values.
    gains = []
    gamma = 1e-7
    for sign in (1, -1):
        network, batch = linear_pair(activation=activation)
        neurons, target = solved(network, batch, 4, project=True)
        change = change_by_widening(network, batch, neurons, sign * gamma**0.5)
        gains.append(oracle.inner(target, change) / gamma)

    gained = float(neurons.singular_values.square().sum())
    # The change is 1e-8 of the output it is taken from; SELU's curvature enters with 3e-4.
    assert sum(gains) == pytest.approx(slopes * gained, rel=1e-3)


@pytest.mark.parametrize("count", [1, 3, 100])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_the_linear_change_of_new_channels_gains_the_squared_singular_values(
    count: int, stride: int, padding: int
) -> None:
    # Acceptance check D: exact for convolutions although S leaves tap-to-tap products out.
    network, batch = conv_pair(
        activation=identity,
        first={"padding": padding},
        second={"stride": stride, "padding": padding},
        size=(8, 9),
    )
    neurons, target = solved(network, batch, count, project=True)

    change = change_by_widening(network, batch, neurons, 1.0)

    gained = float(neurons.singular_values.square().sum())
    assert oracle.inner(target, change) == pytest.approx(gained, rel=1e-9)
    assert gained > 1e-4


@pytest.mark.parametrize(("p", "q"), [(9, 5), (4, 12)])
def test_gradmax_has_no_fan_in_and_the_orthonormal_fan_out_of_the_largest_gradient(
    p: int, q: int
) -> None:
    # Check H. With zero fan-in the gradient at it is N omega^T; its squared norm is to be largest.
    N = np.random.default_rng(p).normal(size=(p, q))

    found = gradmax_neurons(*tensors(N), 3)

    assert found.alpha.shape == (3, p) and not found.alpha.any()
    omega = found.omega.numpy()
    np.testing.assert_allclose(omega @ omega.T, np.eye(3), atol=1e-12)
    best = np.sort(np.linalg.eigvalsh(N.T @ N))[::-1][:3].sum()
    assert np.square(N @ omega.T).sum() == pytest.approx(best, rel=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(50):
        other, _ = np.linalg.qr(rng.normal(size=(q, 3)))
        assert np.square(N @ other).sum() < best
    assert len(gradmax_neurons(*tensors(N), 99).omega) == min(p, q)
