"""Which rows of a matrix are combinations of others, by a QR decomposition with pivots."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Dependence:
    """Rows that are combinations of a basis.

    Attributes:
        basis: indices of independent rows.
        rows: indices of the dependent rows.
        coefficients: float64 (rows, basis).
        residual: largest of a row, as a share of its length.
    """

    basis: tuple[int, ...]
    rows: tuple[int, ...]
    coefficients: torch.Tensor
    residual: float


def dependent_rows(matrix: torch.Tensor, tolerance: float, largest: float) -> Dependence:
    """Return the rows that are combinations of others.

    Rows are taken into the basis by what of them lies outside of it, the largest share first
    (Gram-Schmidt with pivots, each projection done twice), until no more than `tolerance` of any
    row does. A row whose coefficients come out larger than `largest` is no dependent one.

    Args:
        matrix: float64 (rows, columns).
        tolerance: as a share of a row's length.
        largest: of all coefficients, for rows as long as their basis.
    """
    lengths = matrix.norm(dim=1)
    unit = matrix / lengths.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    rest = unit.clone()
    basis: list[int] = []
    directions = unit.new_empty(0, matrix.shape[1])
    while len(basis) < len(matrix):
        outside = rest.norm(dim=1)
        outside[basis] = 0.0
        pivot = int(outside.argmax())
        if not outside[pivot] > max(tolerance, _ROUNDING * matrix.shape[1]):
            break
        direction = rest[pivot] - (rest[pivot] @ directions.T) @ directions
        directions = torch.cat([directions, (direction / direction.norm())[None]])
        basis.append(pivot)
        for _ in range(2):
            rest = rest - (rest @ directions[-1:].T) @ directions[-1:]
    basis.sort()
    others = [i for i in range(len(matrix)) if i not in set(basis)]
    if not others or not basis:
        return Dependence(tuple(basis), (), matrix.new_zeros(0, len(basis)), 0.0)
    solved = torch.linalg.lstsq(unit[basis].T, unit[others].T, driver="gelsd").solution.T
    residuals = (solved @ unit[basis] - unit[others]).norm(dim=1)
    good = (solved.abs().amax(1) <= largest) & (
        residuals <= max(tolerance, _ROUNDING * matrix.shape[1])
    )
    rows = [i for i, well in zip(others, good.tolist(), strict=True) if well]
    coefficients = solved[good] * lengths[rows][:, None] / lengths[basis][None]
    worst = float(residuals[good].max()) if rows else 0.0
    return Dependence(tuple(basis), tuple(rows), coefficients, worst)


# Of float64 products and sums, for each column.
_ROUNDING = 2.0**-52
