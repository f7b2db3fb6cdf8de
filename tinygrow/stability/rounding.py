"""How far sums of products stray from real numbers, in any order of summation.

A sum of n products, each number at most of the given sizes, is off by at most gamma_n times the sum
of the absolute products, gamma_n = n u / (1 - n u), with or without fused operations (Higham,
*Accuracy and Stability of Numerical Algorithms*, 3.1). It does not hold for algorithms that form
other products, such as Winograd's or FFT: torch's float64 convolutions on a CPU are products of
matrices (oneDNN, which could choose otherwise, takes none of that type).
"""

import torch

UNIT32 = 2.0**-24
UNIT64 = 2.0**-53
# Numbers are kept away from where products underflow: a nonzero one counts as no less than this.
LEAST = 1e-150
# Underflow of a float32 product, also where subnormal numbers count as zero.
UNDERFLOW32 = 2.0**-126


def gamma(terms: int, unit: float) -> float:
    """Return gamma_n; infinity where it is not defined."""
    return terms * unit / (1 - terms * unit) if terms * unit < 1 else torch.inf


def outward64(terms: int) -> float:
    """Return a factor that covers a float64 sum of products, its absolute sum and what follows.

    The sum and the absolute one (2 gamma_n, at most), and half a dozen further operations on
    them: twice gamma_(n + 8) is more.
    """
    return 2 * gamma(terms + 8, UNIT64)


def up(values: torch.Tensor) -> torch.Tensor:
    """Return the next larger float64 numbers."""
    return torch.nextafter(values, torch.full_like(values, torch.inf))


def down(values: torch.Tensor) -> torch.Tensor:
    """Return the next smaller float64 numbers."""
    return torch.nextafter(values, torch.full_like(values, -torch.inf))


def away_from_zero(sizes: torch.Tensor) -> torch.Tensor:
    """Return sizes where none but zero itself is so small that products could vanish."""
    return torch.where(sizes > 0, sizes.clamp(min=LEAST), sizes)
