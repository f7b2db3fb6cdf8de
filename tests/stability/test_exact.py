"""Whole-number bounds against fractions, and where float64 cannot decide."""

from fractions import Fraction

import torch
from torch import nn

from tests.stability.networks import dense, perceptron
from tinygrow.observer import Observer
from tinygrow.settings.compress import StabilitySettings
from tinygrow.stability.exact import dyadic, exact_bounds
from tinygrow.stability.interval import interval_bounds
from tinygrow.stability.program import Linear, Program
from tinygrow.stability.search import find_stable

NONE = torch.empty(0, 1, 1, 1, dtype=torch.uint8)


def _by_fractions(program: Program) -> dict[str, list[tuple[Fraction, Fraction]]]:
    box = program.input
    values = [
        (Fraction(float(low)), Fraction(float(high)))
        for low, high in zip(
            box.lower.repeat_interleave(box.shape[1] * box.shape[2]).tolist(),
            box.upper.repeat_interleave(box.shape[1] * box.shape[2]).tolist(),
            strict=True,
        )
    ]
    found = {}
    for layer in (node for node in program.nodes if isinstance(node, Linear)):
        rows = []
        for weights, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
            low = high = Fraction(bias)
            for w, (a, b) in zip(map(Fraction, weights), values, strict=True):
                low, high = low + min(w * a, w * b), high + max(w * a, w * b)
            rows.append((low, high))
        found[layer.name] = rows
        values = [(max(low, Fraction(0)), max(high, Fraction(0))) for low, high in rows]
    return found


def test_bounds_are_those_of_fractions_rounded_outward() -> None:
    for seed in range(5):
        program = dense(perceptron([5, 4], 6, seed, shift=0.5, zero_rows=True), 6)
        exact = exact_bounds(program)
        for name, rows in _by_fractions(program).items():
            for i, (low, high) in enumerate(rows):
                lower, upper = (float(v[i]) for v in exact[name])
                assert Fraction(lower) <= low and Fraction(upper) >= high
                assert abs(Fraction(lower) - low) <= abs(low) * Fraction(1, 2**52)
                assert abs(Fraction(upper) - high) <= abs(high) * Fraction(1, 2**52)


def test_they_lie_within_the_float64_bounds() -> None:
    program = dense(perceptron([20, 20], 30, seed=3, shift=1.0), 30)
    rounded, exact = interval_bounds(program), exact_bounds(program)
    for name, (lower, upper) in exact.items():
        assert (lower >= rounded[name].lower).all() and (upper <= rounded[name].upper).all()


def test_numbers_are_taken_as_they_are() -> None:
    values = torch.tensor([0.0, -1.5, 2.0**-149, 1 / 3, -3.4e38], dtype=torch.float32)
    found = dyadic(values)
    for whole, value in zip(found.whole.tolist(), values.tolist(), strict=True):
        assert Fraction(whole) * Fraction(2) ** found.exponent == Fraction(value)


def test_a_bound_of_zero_is_settled_by_whole_numbers_alone() -> None:
    """Black gives exactly 0, the greatest value; float64 with its error term leaves that open."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    network[1].weight.data = torch.tensor([[-0.1, -0.3]])
    network[1].bias.data.zero_()
    program = dense(network.eval().requires_grad_(False), 2, mean=0.0)
    settled = {}
    for whole in (False, True):
        settings = StabilitySettings(exact=whole, data_images=0)
        stability = find_stable(program, NONE, settings, Observer())
        settled[whole] = [(p.kind, p.method, p.bound) for p in stability["1"].proved]
    assert settled == {False: [], True: [("inactive", "exact", 0.0)]}
