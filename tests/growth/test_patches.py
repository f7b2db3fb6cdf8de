import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from tests.growth import oracle
from tinygrow.errors import TinygrowError
from tinygrow.growth.patches import (
    check_layer,
    multiplicity,
    output_size,
    patch_size,
    patches,
    readings,
)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, tuple[int, int]]:
    """Draw a convolution (rectangular, even, strided, dilated, padded) and a map it fits."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, stride, padding, dilation = pair(1, 3), pair(1, 3), pair(0, 2), pair(1, 2)
    size = pair(1, 6)
    for d in (0, 1):
        assume(size[d] + 2 * padding[d] > (kernel[d] - 1) * dilation[d])
    layer = nn.Conv2d(2, 3, kernel, stride, padding, dilation, bias=draw(st.booleans()))
    return layer.double(), size


@given(convolutions(), st.integers(0, 1000))
def test_patches_are_the_columns_that_the_kernel_multiplies(
    drawn: tuple[nn.Conv2d, tuple[int, int]], seed: int
) -> None:
    layer, size = drawn
    x = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(seed)).double()

    columns = patches(layer, x)

    geometry = oracle.Geometry.of(layer)
    # Copies of numbers, hence equal to the last bit.
    np.testing.assert_array_equal(columns.numpy(), oracle.im2col(x.numpy(), geometry))
    assert columns.shape[1] == patch_size(layer)
    expected = layer(x).detach()
    assert output_size(layer, size) == tuple(expected.shape[2:]) == geometry.output_size(size)
    weights = layer.weight.detach().flatten(1)
    if layer.bias is not None:
        weights = torch.cat([weights, layer.bias.detach()[:, None]], 1)
    # Two float64 sums of at most 19 terms.
    torch.testing.assert_close(weights @ columns, expected.flatten(2), rtol=1e-12, atol=1e-12)


@given(convolutions(), st.integers(0, 1000))
def test_readings_are_the_target_times_the_reading_maps(
    drawn: tuple[nn.Conv2d, tuple[int, int]], seed: int
) -> None:
    second, hidden = drawn
    geometry = oracle.Geometry.of(second)
    maps = oracle.reading_maps(geometry, hidden)
    out = geometry.output_size(hidden)
    target = torch.randn(2, 3, *out, generator=torch.Generator().manual_seed(seed)).double()

    read = readings(second, target, hidden)

    flat = target.flatten(2).numpy()
    expected = np.einsum("ncj,jti->ncti", flat, maps).reshape(2, -1, maps.shape[2])
    # Each entry is one number of the target or zero.
    np.testing.assert_array_equal(read.numpy(), expected)
    counts = multiplicity(second, hidden, out)
    np.testing.assert_array_equal(counts.numpy(), maps.sum((0, 1)))


def test_a_padded_3x3_kernel_reads_9_times_inside_6_at_edges_4_in_corners() -> None:
    counts = multiplicity(nn.Conv2d(1, 1, 3, padding=1), (4, 4), (4, 4)).reshape(4, 4)

    assert counts.tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]


def test_a_strided_kernel_reads_positions_1_2_or_4_times() -> None:
    # tiny.md pitfall 15.
    counts = multiplicity(nn.Conv2d(1, 1, 3, stride=2, padding=1), (7, 7), (4, 4))

    assert sorted(set(counts.tolist())) == [1, 2, 4]


def test_a_linear_layer_reads_its_features_once() -> None:
    layer, x = nn.Linear(3, 2), torch.arange(6.0).reshape(2, 3)

    assert patches(layer, x)[:, :, 0].tolist() == [[0, 1, 2, 1], [3, 4, 5, 1]]
    assert patches(nn.Linear(3, 2, bias=False), x).shape == (2, 3, 1)
    assert patch_size(layer) == 4
    assert output_size(layer, ()) == ()
    assert multiplicity(layer, (), ()).tolist() == [1.0]
    assert multiplicity(layer, (2, 2), ()).tolist() == [1.0] * 4  # behind a flattened map
    assert readings(layer, x, ()).shape == (2, 3, 1)


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.Conv2d(2, 2, 3, groups=2), "groups=2"),
        (nn.Conv2d(2, 2, 2, padding="same"), "padding='same'"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "reflect"),
        (nn.BatchNorm2d(2), "BatchNorm2d"),
    ],
)
def test_layers_that_growth_cannot_read_are_refused_by_name(layer: nn.Module, word: str) -> None:
    with pytest.raises(TinygrowError, match="block1") as caught:
        check_layer(layer, "block1")

    assert word in str(caught.value)
