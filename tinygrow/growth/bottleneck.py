"""The expressivity bottleneck and the neurons that fill it best: pure linear algebra.

Tensors in, tensors out; no network, no I/O. Source: TINY, tiny.md 1.3, 1.4, 1.7.

Legend: S1, M moments of what the second layer reads; S, N moments of what the first layer reads;
lambda singular values of S^(-1/2) N; alpha fan-in weights (bias last), omega fan-out weights.
"""

import math
from dataclasses import dataclass

import torch

from tinygrow.errors import TinygrowError
from tinygrow.growth.triplets import leading_triplets, root_of


@dataclass(frozen=True, slots=True)
class Neurons:
    """New neurons as the closed form gives them, before normalisation and amplitude.

    Attributes:
        alpha: (K, p) fan-in weights, the bias last where the layer has one.
        omega: (K, q * T) fan-out weights, ordered (output channel, tap).
        singular_values: (K,) lambda_k of the chosen neurons, descending.
        spectrum: (r,) all lambda, descending, r the numerical rank of the problem; or the leading
            ones alone.
        complete: whether the spectrum holds all of them.
    """

    alpha: torch.Tensor
    omega: torch.Tensor
    singular_values: torch.Tensor
    spectrum: torch.Tensor
    complete: bool = True


def best_update(S1: torch.Tensor, M: torch.Tensor, relative_cut: float) -> torch.Tensor:
    """Return Delta W* = M^T S1^+, the best move of the existing weights (tiny.md 1.3).

    Args:
        S1: (p1, p1), symmetric positive semi-definite.
        M: (p1, q).
        relative_cut: eigenvalues below this share of the largest count as zero.

    Returns:
        (q, p1) float64; the bias is the last column where S1 was built with a row of ones.

    Raises:
        TinygrowError: a moment holds inf or NaN.
    """
    values, vectors = _spectrum(S1, relative_cut)
    return ((vectors / values) @ (vectors.T @ _finite(M, "M"))).T


def bottleneck(power: float, M: torch.Tensor, delta: torch.Tensor) -> float:
    """Return Psi^2 = min over dW of (1/n) sum ||V - dW b||^2 = power - tr(Delta W* M).

    Args:
        power: (1/n) sum ||V||^2.
        M: (p1, q).
        delta: (q, p1) from `best_update` on the same sample.
    """
    return max(0.0, power - float((delta.T * M.double()).sum()))


def optimal_neurons(
    S: torch.Tensor, N: torch.Tensor, count: int, relative_cut: float, floor: float = 0.0
) -> Neurons:
    """Return the K neurons that minimise (1/n) sum ||V - sum_k omega_k alpha_k^T b||^2.

    alpha_k = sqrt(lambda_k) S^(-1/2) u_k and omega_k = sqrt(lambda_k) v_k with the singular
    triplets of S^(-1/2) N (tiny.md 1.4), found without the root and, in large problems, without the
    other triplets: see `tinygrow.growth.triplets`.

    Args:
        S: (p, p), symmetric positive semi-definite.
        N: (p, q * T).
        count: K; fewer come back where fewer singular values are above rounding.
        relative_cut: eigenvalues of S below this share of the largest count as zero.
        floor: singular values up to this one are rounding of the moments, not directions.

    Returns:
        Neurons in float64, on the device of S.

    Raises:
        TinygrowError: a moment holds inf or NaN.
    """
    root = root_of(_finite(S, "S"), relative_cut)
    triplets = leading_triplets(root, _finite(N, "N"), count)
    spectrum = triplets.values
    largest = float(spectrum[0]) if len(spectrum) else 0.0
    noise = max(floor, largest * torch.finfo(torch.float64).eps * max(N.shape))
    spectrum = spectrum[spectrum > noise] if largest > 0 else spectrum[:0]
    kept = min(count, len(spectrum))
    scale = spectrum[:kept].sqrt()
    return Neurons(
        alpha=(root.apply(triplets.u[:, :kept]) * scale).T.contiguous(),
        omega=(triplets.v[:, :kept] * scale).T.contiguous(),
        singular_values=spectrum[:kept],
        spectrum=spectrum,
        complete=triplets.complete,
    )


def gradmax_neurons(N: torch.Tensor, count: int, floor: float = 0.0) -> Neurons:
    """Return GradMax's neurons: zero fan-in, orthonormal fan-out (tiny.md 1.9 and section 4).

    The fan-out that maximises the gradient's norm at the new fan-in weights are the leading right
    singular vectors of the unprojected N, as if S were the identity. Their scale is the caller's.

    Args:
        N: (p, q * T), measured without projection.
        count: K; fewer come back where fewer singular values are above rounding: what has no
            gradient would not learn.
        floor: singular values up to this one are rounding of the moment, not directions.

    Returns:
        Neurons in float64: alpha all zero, omega with orthonormal rows.

    Raises:
        TinygrowError: N holds inf or NaN.
    """
    _, spectrum, v = torch.linalg.svd(_finite(N, "N"), full_matrices=False)
    spectrum = _above_rounding(spectrum, N, floor)
    omega = v[: min(count, len(spectrum))].contiguous()
    return Neurons(
        alpha=omega.new_zeros(len(omega), N.shape[0]),
        omega=omega,
        singular_values=spectrum[: len(omega)],
        spectrum=spectrum,
    )


def _above_rounding(spectrum: torch.Tensor, N: torch.Tensor, floor: float) -> torch.Tensor:
    """Return the singular values above the floor and above the rounding of their own solution."""
    largest = float(spectrum[0]) if len(spectrum) else 0.0
    noise = max(floor, largest * torch.finfo(torch.float64).eps * max(N.shape))
    return spectrum[spectrum > noise] if largest > 0 else spectrum[:0]


def _spectrum(matrix: torch.Tensor, relative_cut: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the eigenvalues above the relative cut and their eigenvectors, in float64."""
    matrix = _finite(matrix, "S")
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.T))
    kept = values > relative_cut * values[-1].clamp_min(0.0)
    return values[kept], vectors[:, kept]


def _finite(matrix: torch.Tensor, name: str) -> torch.Tensor:
    # One pass; a norm keeps what is not finite.
    if matrix.numel() and not bool(torch.linalg.vector_norm(matrix, math.inf).isfinite()):
        raise TinygrowError(
            f"the second-order moment {name} holds inf or NaN: activations or gradients overflow;"
            " lower the learning rate of growth"
        )
    return matrix.double()
