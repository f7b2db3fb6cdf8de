"""The estimation error of new neurons, from two halves of their sample.

Neurons of one half are worth less on the other than on their own: what is lost is fitted noise
(tiny.md, pitfall 9). The best multiple of a product P = sum_k alpha_k omega_k^T lowers
(1/n) sum ||V - P^T b||^2 by <P, N>^2 / tr(P^T S P), on either half. That chooses a ridge by
cross-validation, and says whether the sample is large enough.
"""

from dataclasses import dataclass

import torch

from tinygrow.growth.bottleneck import optimal_neurons
from tinygrow.growth.statistics import NeuronMoments

RIDGES = (0.0, 1e-3, 1e-2, 1e-1)
"""Shares of the mean eigenvalue of S to choose from."""


@dataclass(frozen=True, slots=True)
class Halves:
    """Moments of two samples of the same site.

    Attributes:
        one: of the first.
        two: of the second.
    """

    one: NeuronMoments
    two: NeuronMoments

    def together(self) -> NeuronMoments:
        """Return the moments of both."""
        return pooled(self.one, self.two)

    def joined(self, more: "Halves") -> "Halves":
        """Return each half with more images."""
        return Halves(pooled(self.one, more.one), pooled(self.two, more.two))

    def best_ridge(self, count: int, relative_cut: float) -> float:
        """Return the ridge whose neurons of one half are worth most on the other.

        Args:
            count: K.
            relative_cut: see `optimal_neurons`.
        """
        return max(RIDGES, key=lambda ridge: self._falls(count, relative_cut, ridge)[1])

    def agreement(self, count: int, relative_cut: float, ridge: float = 0.0) -> float:
        """Return which share of its worth on its own half a set of neurons keeps on the other.

        Args:
            count: K.
            relative_cut: see `optimal_neurons`.
            ridge: see `with_ridge`.
        """
        own, other = self._falls(count, relative_cut, ridge)
        return other / own if own > 0.0 else 0.0

    def _falls(self, count: int, relative_cut: float, ridge: float) -> tuple[float, float]:
        """Return the summed falls on the own halves and on the others."""
        own = other = 0.0
        for here, there in ((self.one, self.two), (self.two, self.one)):
            neurons = optimal_neurons(with_ridge(here.S, ridge), here.N, count, relative_cut)
            own += _fall(here, neurons.alpha, neurons.omega)
            other += _fall(there, neurons.alpha, neurons.omega)
        return own, other


def pooled(one: NeuronMoments, two: NeuronMoments) -> NeuronMoments:
    """Return the moments of both samples."""
    images = one.images + two.images
    a, b = one.images / images, two.images / images
    return NeuronMoments(a * one.S + b * two.S, a * one.N + b * two.N, images)


def with_ridge(S: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return S + ridge * (its mean eigenvalue) * identity."""
    if ridge == 0.0:
        return S
    eye = torch.eye(len(S), dtype=S.dtype, device=S.device)
    return S + ridge * S.diagonal().mean() * eye


def _fall(moments: NeuronMoments, alpha: torch.Tensor, omega: torch.Tensor) -> float:
    """Return by how much the best positive multiple of the neurons lowers the objective."""
    gain = float(((alpha @ moments.N.double()) * omega).sum())
    bend = float(((alpha @ moments.S.double() @ alpha.T) * (omega @ omega.T)).sum())
    return gain**2 / bend if gain > 0.0 and bend > 0.0 else 0.0
