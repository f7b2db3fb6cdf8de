"""Sums over pairs of taps against im2col, for every geometry with stride and dilation 1."""

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
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


@settings(max_examples=50)
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
        init = correlations._Maps.__init__

        def chosen(self: correlations._Maps, *arguments: object) -> None:
            init(self, *arguments)  # type: ignore[arg-type]
            self.large = by_convolution

        patch.setattr(correlations._Maps, "__init__", chosen)
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


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The offset of every product of rectangles that is made."""
    offsets: list[tuple[int, int]] = []
    original = correlations._Maps.multiply

    def counted(self: correlations._Maps, *arguments: Any) -> None:
        offsets.append(arguments[-1])
        original(self, *arguments)

    monkeypatch.setattr(correlations._Maps, "multiply", counted)
    return offsets


def test_13_offsets_do_the_work_of_81_pairs(multiplied: list[tuple[int, int]]) -> None:
    first, second = pair((3, 3), (1, 1), bias=True)
    gram, cross = GramSum(first, BOUND, second), CrossSum(first, BOUND, second)
    gram.add(torch.randn(2, 3, 9, 9, dtype=torch.float64))
    assert len(set(multiplied)) == 13
    # An axis has five spans at offset 0, three at 1 and -1, one at 2 and -2.
    assert len(multiplied) == 5 * (5 + 3 + 1) + (3 + 1) * (5 + 2 * 3 + 2 * 1)
    multiplied.clear()
    cross.add(torch.randn(2, 3, 9, 9).double(), torch.randn(2, 4, 9, 9).double())
    assert set(multiplied) == set(product(range(-2, 3), repeat=2))
    assert len(multiplied) == 7 * 7  # three spans at offset 0


@pytest.mark.parametrize("by_convolution", [True, False])
def test_blocks_of_channels_make_the_same_sums(
    by_convolution: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = nn.Conv2d(37, 2, 3, padding=1).double()
    second = nn.Conv2d(2, 21, 3, padding=1).double()
    x, v = torch.randn(2, 37, 5, 6).double(), torch.randn(2, 21, 5, 6).double()
    if by_convolution:
        init = correlations._Maps.__init__

        def chosen(self: correlations._Maps, *arguments: Any) -> None:
            init(self, *arguments)
            self.large = True

        monkeypatch.setattr(correlations._Maps, "__init__", chosen)
    monkeypatch.setattr(correlations, "_BLOCK_NUMBERS", 1)  # then blocks are of 16 channels
    gram, cross = GramSum(first, BOUND, second), CrossSum(first, BOUND, second)
    for one, other in zip(x, v, strict=True):
        gram.add(one[None])
        cross.add(one[None], other[None])
    S, N = by_patches(first, second, x, v)
    found = gram.result()
    torch.testing.assert_close(found, S, rtol=1e-9, atol=1e-9)
    assert torch.equal(found, found.T)
    torch.testing.assert_close(cross.result(), N, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunks", [1, 16, 17, 40])
def test_sums_of_many_chunks_are_as_good_as_one(chunks: int) -> None:
    # What float64 keeps: alone, 40 additions in float32 would lose ten times as much.
    first, second = pair((3, 3), (1, 1), bias=True)
    x = 1 + 0.01 * torch.randn(chunks, 3, 6, 6)
    v = 1 + 0.01 * torch.randn(chunks, 4, 6, 6)
    gram, cross = GramSum(first, BOUND, second), CrossSum(first, BOUND, second)
    for one, other in zip(x, v, strict=True):
        gram.add(one[None])
        cross.add(one[None], other[None])
    S, N = by_patches(first, second, x.double(), v.double())
    found, crossed = gram.result(), cross.result()
    assert found.dtype == crossed.dtype == (torch.float32 if chunks <= 16 else torch.float64)
    for one, exact in ((found, S), (crossed, N)):
        assert float((one.double() - exact).abs().max()) < 5e-7 * float(exact.abs().max())
