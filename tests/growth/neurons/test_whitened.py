"""TINY in the metric of the empirical Fisher matrix, against loops and a Kronecker product."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.growth import oracle
from tests.growth.neurons.scenes import request
from tests.growth.scenes import EXACT, conv_pair, desired_update_alone, linear_pair, site_of
from tinygrow.growth.bottleneck import optimal_neurons
from tinygrow.growth.neurons import tiny, whitened
from tinygrow.settings.growth import GrowthSettings, SolverSettings
from tinygrow.settings.methods import MethodsSettings, WhitenedSettings

CUT = 1e-12
SETTINGS = GrowthSettings(
    method="whitened",
    statistics=replace(EXACT, same_sample=True),
    solver=SolverSettings(relative_cut=CUT),
    methods=MethodsSettings(whitened=WhitenedSettings(ridge=1e-3)),
)


def problem(p: int = 7, q: int = 4, taps: int = 3) -> tuple[torch.Tensor, ...]:
    """Return S, N and E of random data, E with eigenvalues far apart."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    b, v = draw(50, p), draw(50, q) * torch.tensor([10.0, 3.0, 1.0, 0.3], dtype=torch.float64)
    mixed = v @ torch.linalg.qr(draw(q, q)).Q
    return b.T @ b / 50, draw(p, q * taps), mixed.T @ mixed / 50


def objective(
    alpha: torch.Tensor, omega: torch.Tensor, S: torch.Tensor, N: torch.Tensor, E: torch.Tensor
) -> torch.Tensor:
    """Return J written out, tap by tap: -<V, delta> + 1/2 delta^T E delta, delta linear."""
    taps = N.shape[1] // len(E)
    total = torch.zeros((), dtype=torch.float64)
    for e in range(taps):
        P, N_e = alpha.T @ omega[:, e::taps], N[:, e::taps]  # (p, q)
        total = total - (P * N_e).sum() + 0.5 * torch.trace(P.T @ S @ P @ E)
    return total


def test_with_the_identity_these_are_tinys_neurons() -> None:
    S, N, E = problem()
    eye = torch.eye(len(E), dtype=torch.float64)
    ours = whitened.whitened_neurons(S, N, eye, 3, CUT)
    theirs = optimal_neurons(S, N, 3, CUT)
    for name in ("alpha", "omega", "singular_values", "spectrum"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-12, atol=0)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_neurons_minimise_the_objective(count: int) -> None:
    S, N, E = problem()
    root = whitened.inverse_root(E, 1e-30)

    found = whitened.whitened_neurons(S, N, root, count, CUT)

    alpha, omega = found.alpha.requires_grad_(), found.omega.requires_grad_()
    value = objective(alpha, omega, S, N, E)
    power = float(found.singular_values.square().sum())
    assert -2 * float(value.detach()) == pytest.approx(power, rel=1e-10)
    for gradient in torch.autograd.grad(value, [alpha, omega]):
        assert float(gradient.abs().max()) < 1e-8
    # Of all products of this rank the best, by Eckart and Young: root and SVD of the whole thing.
    whole = np.kron(E.numpy(), np.eye(3))
    left, right = oracle.inverse_root(S.numpy()), oracle.inverse_root(whole)
    u, values, vt = np.linalg.svd(left @ N.numpy() @ right)
    best = left @ (u[:, :count] * values[:count]) @ vt[:count] @ right
    torch.testing.assert_close(
        (alpha.T @ omega).detach(), torch.from_numpy(best), rtol=1e-8, atol=1e-10
    )
    if count == 7:  # all directions: S P E = N, without any decomposition
        flat = torch.linalg.solve(S, N) @ torch.linalg.inv(torch.from_numpy(whole))
        torch.testing.assert_close((alpha.T @ omega).detach(), flat, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_the_proposal_is_the_closed_form_from_loops(kind: str, projection: bool) -> None:
    network, batch = linear_pair() if kind == "linear" else conv_pair(images=10)
    settings = replace(SETTINGS, solver=SolverSettings(relative_cut=CUT, projection=projection))

    proposal = whitened.propose(request(network, site_of(network), batch, settings))

    target = desired_update_alone(network, batch)
    h = network.hidden(batch[0])
    S1, M, _ = oracle.update_moments(h, target, network.second)
    delta = np.linalg.solve(S1, M).T
    left = torch.from_numpy(oracle.projected(h, target, network.second, delta))
    S, N = oracle.neuron_moments(
        batch[0], left if projection else target, network.first, network.second
    )
    v = oracle.as_maps(target)
    columns = [v[i, :, y, x] for i, _, y, x in np.ndindex(len(v), 1, *v.shape[2:])]
    E = sum(np.outer(c, c) for c in columns) / len(columns)
    E += 1e-3 * np.trace(E) / len(E) * np.eye(len(E))
    whole = oracle.inverse_root(np.kron(E, np.eye(N.shape[1] // len(E))))
    expected, values = oracle.rank_k_product(S, N @ whole, 3)
    neurons = proposal.neurons
    torch.testing.assert_close(
        neurons.alpha.T @ neurons.omega,
        torch.from_numpy(expected @ whole),
        rtol=1e-7,
        atol=1e-9,
    )
    torch.testing.assert_close(
        neurons.singular_values, torch.from_numpy(values[:3]), rtol=1e-8, atol=0
    )
    plain = tiny.propose(request(network, site_of(network), batch, settings))
    assert proposal.bottleneck == plain.bottleneck  # of the site, in the metric of nobody
    assert plain.predicts and not proposal.predicts
    assert proposal.images == plain.images + len(batch[1])


def test_the_ridge_is_relative_and_bounds_what_whitening_magnifies() -> None:
    E = torch.diag(torch.tensor([4.0, 2.0, 0.0], dtype=torch.float64))
    root = whitened.inverse_root(E, 0.5)  # the mean eigenvalue is 2
    expected = torch.diag(torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64)).rsqrt()
    torch.testing.assert_close(root.diagonal(), expected.diagonal())
    torch.testing.assert_close(whitened.inverse_root(1e-20 * E, 0.5), 1e10 * root)
    nothing = whitened.inverse_root(torch.zeros_like(E), 0.5)
    assert torch.equal(nothing, torch.eye(3, dtype=torch.float64))
