import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.connectivity.test_paths import ORACLES
from tinygrow.connectivity.dag import Dag
from tinygrow.connectivity.kernel import correlation_behind, kernel_of, profile

f = correlation_behind


@pytest.mark.parametrize(("c", "right"), [*ORACLES["f"].items(), ("1", 1.0)])
def test_published_values(c: str, right: float) -> None:
    assert f(float(c)) == pytest.approx(right, abs=1e-15)


def test_iterates() -> None:
    found = [1 - fall for fall in profile(0.0, 7)]
    assert found == pytest.approx(ORACLES["f_iterates_from_0"], abs=1e-14)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_it_rises_and_moves_up_to_its_only_fixed_point(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert f(low) <= f(high) + 1e-15
    assert f(low) >= low
    assert f(low) > low + 1e-12 or low > 1 - 1e-6


@pytest.mark.parametrize(("depth", "right"), [(100, 35.77), (1000, 43.13), (10000, 44.25)])
def test_differences_fall_with_the_square_of_depth(depth: int, right: float) -> None:
    fall = profile(0.0, depth)[-1] * depth**2
    assert fall == pytest.approx(right, abs=0.005)
    assert fall < 9 * math.pi**2 / 2


def test_it_is_what_a_wide_random_layer_does() -> None:
    rng = np.random.default_rng(0)
    width, c = 200_000, 0.4
    x, y = np.array([1.0, 0.0]), np.array([c, math.sqrt(1 - c * c)])
    weights = rng.standard_normal((width, 2))
    a, b = (np.sqrt(2 / width) * np.maximum(weights @ v, 0) for v in (x, y))
    assert a @ a == pytest.approx(1, abs=0.01)
    assert a @ b == pytest.approx(f(c), abs=0.01)


@pytest.mark.parametrize("c", [-1, -0.5, 0, 0.5, 0.9, 0.99])
def test_the_papers_three_examples(c: float) -> None:
    one, two, three = (Dag.from_code(x) for x in ("2_02_002", "1_01_222", "2_21_112"))
    assert kernel_of(one, c) == pytest.approx((1, f(f(f(c)))))
    assert kernel_of(two, c) == pytest.approx((3, 3 * f(c)))
    assert kernel_of(three, c) == pytest.approx((4, c + f(c) + 2 * f(f(c))))
    for dag in (one, two, three):
        diagonal, entry = kernel_of(dag, c)
        assert diagonal - entry == pytest.approx(dag.paths().bound(c), abs=1e-12)
    assert one.paths().bound(c) < two.paths().bound(c) < three.paths().bound(c)


@pytest.mark.parametrize(
    ("c", "bounds"),
    [(-1, (0.506269, 3.0, 4.363380)), (0.99, (0.009139, 0.029099, 0.038526))],
)
def test_their_published_bounds(c: float, bounds: tuple[float, ...]) -> None:
    found = [Dag.from_code(x).paths().bound(c) for x in ("2_02_002", "1_01_222", "2_21_112")]
    assert found == pytest.approx(bounds, abs=5e-7)


def test_correlations_outside_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.5; it must be from -1 to 1"):
        f(1.5)
