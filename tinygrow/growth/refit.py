"""Fan-out weights by least squares on real activations: pure linear algebra.

The closed form takes the activation for linear and the taps of the second layer for uncorrelated
(tiny.md 1.5 c, 1.6). Once the fan-in is given, neither is needed: with h_k what the second layer
reads of candidate k, and all its taps,

    min over omega of (1/n) sum ||V - sum_k omega_k h_k||_F^2

is a linear least-squares problem whose moments are those of the best update (tiny.md 1.3), of a
network widened by the candidates. So kink, normalisation, sign, taps and overlap are all exact. The
norm may be that of the Fisher matrix F = (1/n) sum V V^T of the outputs, ||x||_F^2 = x^T F x with
the target F^(-1) V: the step that a Gauss-Newton method with Kronecker factors takes.

Legend: C candidates, K of them kept, T taps, q outputs.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class RefitMoments:
    """What the fit needs; every sum is divided by the images, and free of the mean.

    Attributes:
        gram: (C * T, C * T) of the candidates' patches.
        cross: (C * T, q) with the desired update.
        fisher: (q, q) of the desired update.
    """

    gram: torch.Tensor
    cross: torch.Tensor
    fisher: torch.Tensor


@dataclass(frozen=True, slots=True)
class Refit:
    """Neurons chosen among candidates.

    Attributes:
        chosen: (K,) candidates, the most useful first.
        fan_out: (K, T, q).
        gains: (K,) by how much each lowered the objective when it was chosen.
    """

    chosen: torch.Tensor
    fan_out: torch.Tensor
    gains: torch.Tensor


def centred(gram: torch.Tensor, cross: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Leave to a bias what it can explain; both moments have its row last, and lose it."""
    row, weight = gram[-1, :-1], gram[-1, -1]
    return (
        gram[:-1, :-1] - torch.outer(row, row) / weight,
        cross[:-1] - torch.outer(row, cross[-1]) / weight,
    )


def choose_and_fit(
    moments: RefitMoments, taps: int, count: int, ridge: float, damping: float | None
) -> Refit:
    """Choose K candidates, one after the other the one of the largest gain, and fit their fan-out.

    Args:
        moments: of the candidates.
        taps: T.
        count: K; fewer come back where the others would gain nothing.
        ridge: share of its own that is added to each diagonal entry of the Gram matrix.
        damping: of the Fisher matrix, as a share of its mean eigenvalue; None: the norm is
            Euclidean.
    """
    inverse = None if damping is None else inverse_fisher(moments.fisher, damping)
    gram = _with_ridge(moments.gram.double(), ridge)
    cross = moments.cross.double()
    white = cross if inverse is None else cross @ torch.linalg.cholesky(inverse)
    chosen, gains = _greedy(gram, white, taps, count)
    rows = (chosen[:, None] * taps + torch.arange(taps, device=chosen.device)).reshape(-1)
    fan_out = torch.linalg.solve(gram[rows][:, rows], cross[rows])
    if inverse is not None:
        fan_out = fan_out @ inverse
    return Refit(chosen, fan_out.reshape(len(chosen), taps, cross.shape[1]), gains)


def fit_scales(
    moments: RefitMoments, fan_out: torch.Tensor, ridge: float, damping: float | None
) -> torch.Tensor:
    """Return the factor (K,) of each neuron's fan-out (K, T, q) that fits best.

    A factor below zero would turn a neuron against its own direction, which can only be noise or
    overlap with the others: it becomes zero.
    """
    count, taps, _ = fan_out.shape
    fisher = torch.eye(fan_out.shape[2], dtype=torch.float64, device=fan_out.device)
    if damping is not None:
        fisher = torch.linalg.inv(inverse_fisher(moments.fisher, damping))
    omega = fan_out.double().reshape(count * taps, -1)
    # (k, l): sum over taps of omega_k^T F omega_l times the moment of their activations.
    pairs = moments.gram.double() * (omega @ fisher @ omega.T)
    gram = _with_ridge(pairs.reshape(count, taps, count, taps).sum((1, 3)), ridge)
    cross = (moments.cross.double() * omega).reshape(count, -1).sum(1)
    return torch.linalg.solve(gram, cross).clamp_min(0.0)


def inverse_fisher(fisher: torch.Tensor, damping: float) -> torch.Tensor:
    """Return (F + damping * mean eigenvalue)^(-1) with mean eigenvalue 1; of F = 0 the identity."""
    side = len(fisher)
    eye = torch.eye(side, dtype=torch.float64, device=fisher.device)
    mean = fisher.double().trace() / side
    if not float(mean) > 0.0:
        return eye
    inverse = torch.linalg.inv(fisher.double() / mean + damping * eye)
    return inverse * (side / inverse.trace())


def _with_ridge(gram: torch.Tensor, ridge: float) -> torch.Tensor:
    diagonal = gram.diagonal()
    floor = 1e-12 * diagonal.max().clamp_min(1e-300)  # a dead candidate: no gain, but no failure
    return gram + torch.diag(ridge * diagonal + floor)


def _greedy(
    gram: torch.Tensor, cross: torch.Tensor, taps: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return candidates and gains; the rest is projected off what was chosen each time."""
    candidates = len(gram) // taps
    gram, cross = gram.clone(), cross.clone()
    left = torch.ones(candidates, dtype=torch.bool, device=gram.device)
    chosen, gains = [], []
    for _ in range(min(count, candidates)):
        blocks = gram.reshape(candidates, taps, candidates, taps)
        own = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (C, T, T)
        factors, _ = torch.linalg.cholesky_ex(own)
        solved = torch.linalg.solve_triangular(
            factors, cross.reshape(candidates, taps, -1), upper=False
        )
        gain = solved.square().sum((1, 2)).nan_to_num(0.0).masked_fill(~left, -1.0)
        best = int(gain.argmax())
        if float(gain[best]) <= 0.0:
            break
        chosen.append(best)
        gains.append(float(gain[best]))
        left[best] = False
        own_rows = slice(best * taps, (best + 1) * taps)
        step = torch.cholesky_solve(torch.cat([gram, cross], 1)[own_rows], factors[best])
        beside = gram[:, own_rows].clone()
        gram -= beside @ step[:, : len(gram)]
        cross -= beside @ step[:, len(gram) :]
        # What was chosen has no rest; rounding must not make it look like one.
        gram[own_rows, own_rows] = torch.eye(taps, dtype=gram.dtype, device=gram.device)
    device = gram.device
    return (
        torch.tensor(chosen, dtype=torch.int64, device=device),
        torch.tensor(gains, dtype=torch.float64, device=device),
    )
