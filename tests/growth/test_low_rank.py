"""The root of a matrix of low rank against its full decomposition."""

import pytest
import torch

from tinygrow.growth import low_rank
from tinygrow.growth.low_rank import largest_eigenvalue, low_rank_root

CUT = 1e-6


def matrix(values: torch.Tensor, size: int = 150) -> torch.Tensor:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))[0][:, : len(values)]
    S = (basis * values) @ basis.T
    return 0.5 * (S + S.T)


def inverse(S: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(S)
    kept = values > CUT * values[-1]
    return (vectors[:, kept] / values[kept]) @ vectors[:, kept].T


def found_for(S: torch.Tensor) -> torch.Tensor | None:
    return low_rank_root(S, CUT, float(torch.linalg.eigvalsh(S)[-1]))


@pytest.mark.parametrize("scale", [1.0, 1e-14, 1e10])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_inverse_is_that_of_all_eigenvectors(scale: float, rounded: bool) -> None:
    # Rounded to float32, S has full rank and negative eigenvalues, all below the cut.
    S = matrix(scale * torch.logspace(0, -4, 30, dtype=torch.float64))
    S = S.float().double() if rounded else S
    R = found_for(S)
    assert R is not None and R.shape == (150, 30)
    expected = inverse(S)
    assert float((R @ R.T - expected).norm()) < 1e-7 * float(expected.norm())


@pytest.mark.parametrize("decades", [5.9, 6.1, 7.0, 9.0, 20.0])
def test_a_spectrum_that_falls_through_the_cut_is_right_or_refused(decades: float) -> None:
    S = matrix(torch.logspace(0, -decades, 40, dtype=torch.float64))
    R = found_for(S)
    if R is not None:
        expected = inverse(S)
        assert float((R @ R.T - expected).norm()) < 1e-6 * float(expected.norm())
    assert R is not None or decades > 6


def test_a_direction_that_was_overlooked_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.ones(20, dtype=torch.float64)
    weak = torch.full((1,), 3 * CUT, dtype=torch.float64)  # spread: 2e-8 of each diagonal entry
    assert found_for(matrix(torch.cat([values, weak]))) is not None
    monkeypatch.setattr(low_rank, "_FLOOR", 100.0)
    monkeypatch.setattr(low_rank, "_BLOCK", 20)  # else 128 columns happen to hold it
    assert found_for(matrix(values)) is not None
    assert found_for(matrix(torch.cat([values, weak]))) is None


def test_a_rank_that_is_not_low_is_left_to_others() -> None:
    assert found_for(matrix(torch.ones(60, dtype=torch.float64))) is None
    assert found_for(torch.zeros(20, 20, dtype=torch.float64)) is None


def test_the_largest_eigenvalue_is_found_to_a_few_digits() -> None:
    values = torch.logspace(3, -3, 150, dtype=torch.float64)
    found = largest_eigenvalue(lambda x: matrix(values) @ x, values)
    assert 0.9 * 1e3 < found <= 1e3 * (1 + 1e-12)
