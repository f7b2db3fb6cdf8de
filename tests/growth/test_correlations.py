"""Sums over pairs of taps against im2col, for every geometry with stride and dilation 1."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tinygrow.growth import correlations
from tinygrow.growth.moments import CrossSum, GramSum
from tinygrow.growth.patches import multiplicity, output_size, patches, readings

BOUND = 10**9


def pair(
    kernels: tuple[int, int], paddings: tuple[int, int], bias: bool
) -> tuple[nn.Conv2d, nn.Conv2d]:
    first = nn.Conv2d(3, 2, (kernels[0], kernels[1]), padding=paddings, bias=bias)
    second = nn.Conv2d(2, 4, (kernels[1], kernels[0]), padding=paddings[::-1], bias=bias)
    return first.double(), second.double()


def by_patches(
    first: nn.Conv2d, second: nn.Conv2d, x: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """S and N from whole im2col matrices."""
    hidden = output_size(first, tuple(x.shape[2:]))
    columns = patches(first, x)
    weights = multiplicity(second, hidden, tuple(v.shape[2:])).to(columns)
    reading = readings(second, v, hidden)
    return (
        torch.einsum("bpl,brl,l->pr", columns, columns, weights),
        torch.einsum("bpl,brl->pr", columns, reading),
    )


@given(
    kernels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    paddings=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    bias=st.booleans(),
    by_convolution=st.booleans(),
    images=st.integers(1, 3),
)
def test_moments_are_those_of_im2col(
    kernels: tuple[int, int],
    paddings: tuple[int, int],
    extra: tuple[int, int],
    bias: bool,
    by_convolution: bool,
    images: int,
) -> None:
    first, second = pair(kernels, paddings, bias)
    least = sum(kernels) - 1 - 2 * min(sum(paddings), (sum(kernels) - 1) // 2)
    x = torch.randn(images, 3, least + extra[0], least + extra[1], dtype=torch.float64)
    try:
        hidden = first(x)
        output = second(hidden)
    except RuntimeError:  # the kernel does not fit into the padded map
        return
    v = torch.randn_like(output)
    with pytest.MonkeyPatch.context() as patch:
        init = correlations._Sums.__init__

        def chosen(self: correlations._Sums, *arguments: object) -> None:
            init(self, *arguments)  # type: ignore[arg-type]
            self._by_convolution = by_convolution

        patch.setattr(correlations._Sums, "__init__", chosen)
        gram, cross = GramSum(first, BOUND, second), CrossSum(first, BOUND, second)
        plain, best = GramSum(second, BOUND), CrossSum(second, BOUND)
        for part, wanted, inner in zip(x, v, hidden.detach(), strict=True):  # added one by one
            gram.add(part[None])
            cross.add(part[None], wanted[None])
            plain.add(inner[None])
            best.add(inner[None], wanted[None])
    S, N = by_patches(first, second, x, v)
    columns = patches(second, hidden.detach())
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(gram.result(), S, **close)
    torch.testing.assert_close(cross.result(), N, **close)
    torch.testing.assert_close(
        plain.result(), torch.einsum("bpl,brl->pr", columns, columns), **close
    )
    torch.testing.assert_close(
        best.result(), torch.einsum("bpl,bql->pq", columns, v.flatten(2)), **close
    )


def test_13_offsets_do_the_work_of_81_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pair((3, 3), (1, 1), bias=True)
    multiplied: list[tuple[int, int]] = []
    original = correlations._Sums._multiplied

    def counted(self: correlations._Sums, dy: int, dx: int) -> torch.Tensor:
        multiplied.append((dy, dx))
        return original(self, dy, dx)

    monkeypatch.setattr(correlations._Sums, "_multiplied", counted)
    gram, cross = GramSum(first, BOUND, second), CrossSum(first, BOUND, second)
    gram.add(torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert len(multiplied) == 13 and len(set(multiplied)) == 13
    multiplied.clear()
    x, v = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 4, 4, 4).double()
    cross.add(x, v)
    assert sorted(multiplied) == sorted(product(range(-2, 3), repeat=2))
