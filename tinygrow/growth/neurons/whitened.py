"""TINY in the metric of the empirical Fisher matrix at the second layer's output.

TINY follows V, steepest descent where a change of any output costs alike. With the curvature E of
the loss in these outputs, the change delta that lowers the loss most, to second order, minimises

    J = (1/n) sum ( -<V, delta> + 1/2 delta^T E delta )
      = (1/2n) sum ||E^(1/2) (E^(-1) V - delta)||^2 + constant,

a fit of the natural gradient's step E^(-1) V in the metric E. With delta = sum_k omega_k alpha_k^T
b and w_k = E^(1/2) omega_k this is TINY's own problem for the target E^(-1/2) V: with the singular
triplets (lambda, u, v) of

    S^(-1/2) N E^(-1/2):    alpha = sqrt(lambda) S^(-1/2) u,    omega = sqrt(lambda) E^(-1/2) v,

and -2 J is the sum of lambda^2 of the neurons taken. The other objective with these triplets,
||E^(-1/2) (V - delta)||^2, has omega = sqrt(lambda) E^(1/2) v. It fits V itself, and cares least
for the outputs with the largest gradients; it is not this one.

E is (q, q), the mean of V V^T over images and output positions: of the gradients of the labels,
thus the *empirical* Fisher matrix. The taps of a convolution share it as they share S (tiny.md
section 4).
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from tinygrow.growth.bottleneck import Neurons, optimal_neurons
from tinygrow.growth.neurons import tiny
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.sample_size import update_sample_size
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import batch_statistics, desired_update
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32


def propose(request: Request) -> Proposal:
    """Measure E on a sample of its own, then as `tiny` does."""
    network, site, settings = request.network, request.site, request.settings
    started = time.perf_counter()
    with batch_statistics(network):
        _, h, _ = desired_update(network, site, request.sample(2)[0])
    images = update_sample_size(
        site.layers(network)[1], tuple(h.shape[2:]), request.available, settings.statistics
    )
    sample = request.sample(images)
    E = output_moment(network, site, sample, settings.training.label_smoothing)
    root = inverse_root(E, settings.methods.whitened.ridge)
    seconds = time.perf_counter() - started

    def solve(
        S: torch.Tensor, N: torch.Tensor, count: int, relative_cut: float, floor: float
    ) -> Neurons:
        return whitened_neurons(S, N, root, count, relative_cut, floor)

    proposal = tiny.propose(request, solve)
    return replace(
        proposal,
        predicts=False,
        images=proposal.images + sum(len(labels) for _, labels in sample),
        seconds_statistics=proposal.seconds_statistics + seconds,
    )


def output_moment(
    network: nn.Module, site: Site, batches: Sequence[Batch], label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return E (q, q) in float64: the mean of V V^T over images and output positions."""
    total, count = torch.zeros(()), 0
    with batch_statistics(network), full_float32():
        for batch in batches:
            target = desired_update(network, site, batch, label_smoothing)[2]
            columns = target.transpose(0, 1).flatten(1).double()
            total = (columns @ columns.T) + total.to(columns.device)
            count += columns.shape[1]
    return total / count


def inverse_root(E: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return (E + ridge * mean eigenvalue)^(-1/2); the identity where E is zero.

    Args:
        E: (q, q), symmetric positive semi-definite.
        ridge: relative, above zero.
    """
    values, vectors = torch.linalg.eigh(0.5 * (E + E.T))
    values = values.clamp_min(0.0) + ridge * values.clamp_min(0.0).mean()
    if not bool(values[0] > 0):
        return torch.eye(len(E), dtype=E.dtype, device=E.device)
    return (vectors * values.rsqrt()) @ vectors.T


def whitened_neurons(
    S: torch.Tensor,
    N: torch.Tensor,
    root: torch.Tensor,
    count: int,
    relative_cut: float,
    floor: float = 0.0,
) -> Neurons:
    """Return the K neurons of the objective above; with root = 1 those of `optimal_neurons`.

    Args:
        S: (p, p), symmetric positive semi-definite.
        N: (p, q * T).
        root: E^(-1/2) (q, q).
        count: K; fewer come back where fewer singular values are above rounding.
        relative_cut: eigenvalues of S below this share of the largest count as zero.
        floor: entries of S^(-1/2) N up to this one are rounding.
    """
    root = root.to(N.device)
    largest = float(torch.linalg.matrix_norm(root, 2))
    found = optimal_neurons(S, _outputs(N.double(), root), count, relative_cut, floor * largest)
    return replace(found, omega=_outputs(found.omega, root).contiguous())


def _outputs(rows: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """Multiply the q output channels of (rows, q * T) by a symmetric (q, q)."""
    return torch.einsum("rct,cd->rdt", rows.unflatten(1, (len(root), -1)), root).flatten(1)
