"""Eigenvectors of a positive semi-definite matrix of low rank, without those of the whole.

Blocks of columns where the diagonal of what is left is largest (a pivoted Cholesky decomposition,
block by block) span its range, up to rounding of the moments; a product with the matrix sharpens
the span, and the small problem within it has the eigenvectors. What is found is checked: against
the matrix, and what is left of the matrix against the cut. Otherwise nothing is returned.
"""

from collections.abc import Callable

import torch

_SHARE = 3
"""Part of p up to which the rank is low."""
_BLOCK = 128
_FLOOR = 1e-3
"""Diagonal of the remainder, as a share of the cut, at which to stop looking for columns."""
_NOISE = 0.05
"""Eigenvalue within a block of columns, as a share of the cut, from which on it is kept."""
_ERROR = 1e-8
"""Of an eigenvector, as a share of its eigenvalue."""
_PRODUCTS = 3
_MARGIN = 4.0
"""Times the remainder's largest eigenvalue, as estimated, that must stay below the cut."""
_LANCZOS_STEPS = 12


def low_rank_root(S: torch.Tensor, relative_cut: float, largest: float) -> torch.Tensor | None:
    """Return R (p, r) with R R^T = S^+, restricted to eigenvalues above the cut, if r is low.

    Args:
        S: (p, p) float64, symmetric positive semi-definite but for rounding.
        relative_cut: eigenvalues below this share of the largest count as zero.
        largest: eigenvalue, nearly.
    """
    cut = relative_cut * largest
    if cut <= 0.0:
        return None
    columns = _columns(S, cut, len(S) // _SHARE)
    if columns is None:
        return None
    values, vectors = torch.linalg.eigh(columns.T @ columns)
    # A few below the cut, too: they keep the vectors around the cut apart.
    wide = values > 0.1 * cut
    basis = columns @ (vectors[:, wide] / values[wide].sqrt())
    for _ in range(_PRODUCTS):
        image = S @ basis
        values, mixed = torch.linalg.eigh(basis.T @ image)
        kept = values > relative_cut * values[-1]
        vectors, values = basis @ mixed[:, kept], values[kept]
        missed = (image @ mixed[:, kept] - vectors * values).norm(dim=0)
        if bool((missed <= _ERROR * values).all()):
            complete = _MARGIN * _remainder(S, vectors) < cut
            return vectors / values.sqrt() if complete else None
        basis = torch.linalg.qr(image)[0]
    return None


def largest_eigenvalue(apply: Callable[[torch.Tensor], torch.Tensor], like: torch.Tensor) -> float:
    """Return the largest eigenvalue of a symmetric operator, from below, by Lanczos' method.

    Args:
        apply: the operator, on (p, 1).
        like: tensor whose first size is p, whose precision and device are the operator's.
    """
    generator = torch.Generator(like.device).manual_seed(0)
    x = torch.randn(len(like), 1, generator=generator, dtype=like.dtype, device=like.device)
    basis = x / x.norm()
    diagonal, beside = [], []
    for _ in range(min(_LANCZOS_STEPS, len(like))):
        y = apply(basis[:, -1:])
        diagonal.append((basis[:, -1:] * y).sum())
        for _ in range(2):
            y = y - basis @ (basis.T @ y)
        length = y.norm()
        if float(length) <= 1e-13 * abs(float(diagonal[0])):
            break
        beside.append(length)
        basis = torch.cat([basis, y / length], 1)
    matrix = torch.diag(torch.stack(diagonal))
    for i, length in enumerate(beside[: len(diagonal) - 1]):
        matrix[i, i + 1] = matrix[i + 1, i] = length
    return float(torch.linalg.eigvalsh(matrix)[-1])


def _columns(S: torch.Tensor, cut: float, most: int) -> torch.Tensor | None:
    """Return L (p, r) with S - L L^T nearly zero, or nothing where r exceeds `most`."""
    left = S.diagonal().clone()
    found = S.new_empty(len(S), most + _BLOCK)
    rank = 0
    while rank <= most:
        largest, pivots = left.topk(min(_BLOCK, len(S)))
        if float(largest[0]) <= _FLOOR * cut:
            return found[:, :rank]
        known = found[:, :rank]
        fresh = S[:, pivots] - known @ known[pivots].T
        values, vectors = torch.linalg.eigh(fresh[pivots])
        # The pivots may depend on each other; then rounding is what is left of some.
        kept = values > max(_NOISE * cut, 1e-10 * float(values[-1]))
        fresh = fresh @ (vectors[:, kept] / values[kept].sqrt())
        count = fresh.shape[1]
        if not count:
            return found[:, :rank]
        found[:, rank : rank + count] = fresh
        left = left - fresh.square().sum(1)
        rank += count
    return None


def _remainder(S: torch.Tensor, vectors: torch.Tensor) -> float:
    """Return the largest eigenvalue of S beside these of its eigenvectors, nearly."""

    def beside(x: torch.Tensor) -> torch.Tensor:
        return x - vectors @ (vectors.T @ x)

    return largest_eigenvalue(lambda x: beside(S @ beside(x)), S)
