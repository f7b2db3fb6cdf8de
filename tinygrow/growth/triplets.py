"""Leading singular triplets of S^(-1/2) N, without the root and without a full decomposition.

Any R with R R^T = S^+ will do in place of the root: R^T N has the singular values of S^(-1/2) N,
and R u is the same fan-in. Where S has full numerical rank, R is the inverse of a Cholesky factor,
which is only solved with; elsewhere it is made of the eigenvectors above the cut. The leading
triplets then come from a block Krylov space of a few products with N.
"""

from dataclasses import dataclass

import torch

from tinygrow.growth.low_rank import largest_eigenvalue, low_rank_root

_SMALL = 640
"""Side up to which a full decomposition is the fastest."""
_EXTRA = 8  # vectors of a block beside those that are wanted
_ANGLE = 2e-7
"""Error of the wanted space, as a share of its distance to the rest."""
_TOLD_APART = 0.01
"""Share by which two squared singular values must differ to be told apart that precisely."""
_MARGIN = 4.0
"""Times the cut by which the smallest eigenvalue, as estimated, must exceed it."""


@dataclass(frozen=True, slots=True)
class Root:
    """R with R R^T = S^+ restricted to the eigenvalues above the cut.

    Attributes:
        factor: lower Cholesky factor L (p, p) of S, whose R is L^(-T); or R itself (p, r).
        triangular: which of them.
    """

    factor: torch.Tensor
    triangular: bool

    @property
    def rank(self) -> int:
        """Return r."""
        return self.factor.shape[1]

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Return R x (p, k) for x (r, k)."""
        if self.triangular:
            return torch.linalg.solve_triangular(self.factor.T, x, upper=True)
        return _product(self.factor, x)

    def apply_transposed(self, x: torch.Tensor) -> torch.Tensor:
        """Return R^T x (r, k) for x (p, k)."""
        if self.triangular:
            return torch.linalg.solve_triangular(self.factor, x, upper=False)
        return _product(self.factor.T, x)


@dataclass(frozen=True, slots=True)
class Triplets:
    """Leading singular triplets, descending.

    Attributes:
        u: (r, k).
        values: (k,).
        v: (q, k).
        complete: whether these are all there are.
    """

    u: torch.Tensor
    values: torch.Tensor
    v: torch.Tensor
    complete: bool


def root_of(S: torch.Tensor, relative_cut: float) -> Root:
    """Return a root of the pseudo-inverse.

    Args:
        S: (p, p) float64, symmetric positive semi-definite, finite.
        relative_cut: eigenvalues below this share of the largest count as zero.
    """
    factor, failed = torch.linalg.cholesky_ex(S)
    largest = largest_eigenvalue(lambda x: S @ x, S)
    if not bool(failed) and largest > 0.0:
        root = Root(factor, triangular=True)
        inverse = largest_eigenvalue(lambda x: root.apply(root.apply_transposed(x)), S)
        if 0.0 < inverse * _MARGIN * relative_cut * largest < 1.0:
            return root
    if len(S) > _SMALL:
        found = low_rank_root(S, relative_cut, largest)
        if found is not None:
            return Root(found, triangular=False)
    values, vectors = torch.linalg.eigh(S)
    kept = values > relative_cut * values[-1].clamp_min(0.0)
    return Root(vectors[:, kept] / values[kept].sqrt(), triangular=False)


def leading_triplets(root: Root, N: torch.Tensor, count: int) -> Triplets:
    """Return the `count` leading singular triplets of R^T N, or all of a small problem.

    Args:
        root: of S.
        N: (p, q) float64, finite.
        count: K.
    """
    side, block = min(root.rank, N.shape[1]), count + _EXTRA
    if side <= _SMALL or 6 * block > side:
        return _all_triplets(root, N)
    generator = torch.Generator(N.device).manual_seed(0)
    start = torch.randn(N.shape[1], block, generator=generator, dtype=N.dtype, device=N.device)
    basis = torch.linalg.qr(root.apply_transposed(_product(N, start)))[0]  # (r, k), grows
    images = N.new_empty(N.shape[1], 0)  # (R^T N)^T basis
    gram = N.new_empty(0, 0)  # images^T images
    while basis.shape[1] <= side // 2:
        image = _product(N.T, root.apply(basis[:, -block:]))
        beside = images.T @ image
        gram = torch.cat([torch.cat([gram, beside], 1), torch.cat([beside.T, image.T @ image], 1)])
        images = torch.cat([images, image], 1)
        rest = root.apply_transposed(_product(N, image))
        for _ in range(2):  # once leaves what rounding has mixed in
            rest = rest - basis @ (basis.T @ rest)
        fresh, lengths = torch.linalg.qr(rest)
        squares, mixed = torch.linalg.eigh(gram)
        # What the wanted vectors miss lies in the new block alone.
        missed = float((lengths @ mixed[-block:, -count:]).norm())
        last = float(squares[-count])
        gap = max(last - float(squares[-count - 1]), _TOLD_APART * last)
        if missed <= max(_ANGLE * gap, 1e-14 * float(squares[-1])):
            order = torch.arange(len(squares) - 1, len(squares) - 1 - count, -1)
            values = squares[order].clamp_min(0.0).sqrt()
            mixed = mixed[:, order]
            return Triplets(basis @ mixed, values, images @ mixed / values, complete=False)
        basis = torch.cat([basis, fresh], 1)
    return _all_triplets(root, N)  # values so close together that no shortcut tells them apart


def _product(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return matrix @ x (p, k), k small: MKL is up to ten times faster the other way round."""
    return (x.T @ matrix.T).T


def _all_triplets(root: Root, N: torch.Tensor) -> Triplets:
    u, values, v = torch.linalg.svd(root.apply_transposed(N), full_matrices=False)
    return Triplets(u, values, v.T, complete=True)
