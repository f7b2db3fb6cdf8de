"""Leading triplets against a full float64 decomposition."""

import numpy as np
import pytest
import torch

from tinygrow.growth import triplets
from tinygrow.growth.bottleneck import optimal_neurons
from tinygrow.growth.triplets import leading_triplets, root_of

CUT = 1e-6


def problem(
    p: int, q: int, decades: float, rank: int, scale: float, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """S of a given rank and spread of eigenvalues, in a random basis, and N in its range."""
    torch.manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(p, p, dtype=torch.float64))[0][:, :rank]
    values = torch.logspace(0, -decades, rank, dtype=torch.float64)
    S = scale * (basis * values) @ basis.T
    N = scale**0.5 * (basis * values.sqrt()) @ torch.randn(rank, q, dtype=torch.float64)
    return 0.5 * (S + S.T), N @ torch.diag(torch.logspace(0, -2, q, dtype=torch.float64))


def reference(S: torch.Tensor, N: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The rank-K product of fan-in and fan-out, and all singular values, by eigh and SVD."""
    values, vectors = np.linalg.eigh(S.numpy())
    kept = values > CUT * values[-1]
    root = vectors[:, kept] / np.sqrt(values[kept])
    u, s, vt = np.linalg.svd(root.T @ N.numpy(), full_matrices=False)
    return root @ u[:, :count] @ np.diag(s[:count]) @ vt[:count], s


@pytest.mark.parametrize("scale", [1.0, 1e-14, 1e10])
@pytest.mark.parametrize(
    ("decades", "rank"),
    [(3.0, 300), (5.3, 300), (5.9, 300), (8.0, 300), (3.0, 200), (4.0, 90)],
    ids=["full rank", "badly scaled", "at the cut", "beyond the cut", "rank 200", "low rank"],
)
@pytest.mark.parametrize("count", [1, 6, 24])
def test_neurons_are_those_of_eigh_and_svd(
    monkeypatch: pytest.MonkeyPatch, decades: float, rank: int, scale: float, count: int
) -> None:
    monkeypatch.setattr(triplets, "_SMALL", 32)
    S, N = problem(300, 280, decades, rank, scale)
    # The next K from here on that 1 % keeps apart from K + 1.
    values = reference(S, N, 1)[1]
    count = next(k for k in range(count, len(values)) if values[k - 1] >= 1.01 * values[k])
    product, values = reference(S, N, count)
    neurons = optimal_neurons(S, N, count, CUT)
    ours = (neurons.alpha.T @ neurons.omega).numpy()
    assert np.linalg.norm(ours - product) < 1e-6 * np.linalg.norm(product)
    np.testing.assert_allclose(neurons.singular_values.numpy(), values[:count], rtol=1e-8)


def _small_ones_alone(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    assert len(matrix) < 300, "the eigenvectors of the whole matrix"
    return torch._C._linalg.linalg_eigh(matrix)


def test_the_shortcuts_are_taken_where_they_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triplets, "_SMALL", 32)
    S, N = problem(300, 280, 3.0, 300, 1.0)
    root = root_of(S, CUT)
    assert root.triangular
    assert not leading_triplets(root, N, 3).complete  # by the Krylov space
    beyond, _ = problem(300, 280, 8.0, 300, 1.0)
    assert not root_of(beyond, CUT).triangular  # Cholesky would keep what the cut drops
    deficient, N = problem(300, 280, 3.0, 200, 1.0)
    root = root_of(deficient, CUT)
    assert (root.triangular, root.rank) == (False, 200)
    assert leading_triplets(root, N, 200).complete
    low, _ = problem(300, 280, 3.0, 90, 1.0)
    monkeypatch.setattr(torch.linalg, "eigh", _small_ones_alone)
    root = root_of(low, CUT)
    assert (root.triangular, root.rank) == (False, 90)


def test_values_that_nothing_tells_apart_are_found_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(triplets, "_SMALL", 32)
    found = leading_triplets(root_of(torch.eye(300).double(), CUT), torch.eye(300).double(), 4)
    torch.testing.assert_close(found.values[:4], torch.ones(4, dtype=torch.float64))
    product = found.u[:, :4].T @ found.v[:, :4]
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64))
