"""Linear bounds: sound, never looser once intersected, and checkable from what is shipped."""

import pytest
import torch
from torch import nn

from tests.stability.networks import Residual, card, dense, perceptron, residual, samples
from tinygrow.observer import Observer
from tinygrow.settings.compress import StabilitySettings
from tinygrow.stability.crown import backward_lines, slopes_of
from tinygrow.stability.evaluate import evaluate
from tinygrow.stability.found import Stability
from tinygrow.stability.interval import interval_bounds
from tinygrow.stability.ledger import Ledger, greatest
from tinygrow.stability.program import Linear, Program, program_of
from tinygrow.stability.search import find_stable
from tinygrow.stability.tighten import tighten

NONE = torch.empty(0, 1, 1, 1, dtype=torch.uint8)
CROWN = StabilitySettings(bounds="crown", data_images=0, exact=False)


def _tightened(program: Program) -> None:
    bounds = interval_bounds(program)
    tight = tighten(Ledger(program, bounds)).bounds
    values = evaluate(program, samples(program, 60), bounds)
    for name, value in values.items():
        assert (tight[name].upper <= bounds[name].upper).all()
        assert (tight[name].lower >= bounds[name].lower).all()
        assert (value <= tight[name].upper + 1e-12).all()
        assert (value >= tight[name].lower - 1e-12).all()


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_dense_bounds_are_sound_and_no_looser(shift: float) -> None:
    for seed in range(15):
        zero = seed % 2 == 0
        _tightened(dense(perceptron([6, 5, 4], 5, seed, shift, zero), 5, mean=0.0 if zero else 0.5))


def test_convolutional_bounds_are_sound_and_no_looser() -> None:
    for seed in range(4):
        _tightened(residual(seed))


def test_lines_hold_for_every_image_and_gain_something() -> None:
    gained = 0
    for seed in range(3):
        program = residual(seed)
        bounds = interval_bounds(program)
        slopes = {n.name: slopes_of(bounds[n.name]) for n in program.before_relus()}
        x = samples(program, 100, seed)
        for name in ("add_1", "next", "dense", "head"):
            value = evaluate(program, x, [name])[name].flatten(1)
            flat = torch.arange(min(12, value.shape[1]))
            for side, sign in (("upper", 1.0), ("lower", -1.0)):
                lines = backward_lines(program, bounds, slopes, name, flat, side)
                line = x.flatten(1) @ lines.coefficients.T + lines.constants
                assert (sign * (line - value[:, flat]) >= -1e-9).all()
                assert (sign * (lines.bounds - line) >= -1e-9).all()
                ends = bounds[name].upper if side == "upper" else bounds[name].lower
                gained += int((sign * (ends.flatten()[flat] - lines.bounds) > 1e-6).sum())
    assert gained > 100


def _check(program: Program, stability: Stability) -> set[tuple[str, int, str]]:
    """Re-check shipped lines on a dense network by the words of `Line`, in plain loops."""
    box = program.input
    ones = torch.ones(box.shape, dtype=torch.float64)
    low, high = ((v.reshape(-1, 1, 1) * ones).flatten() for v in (box.lower, box.upper))
    layers = [node for node in program.nodes if isinstance(node, Linear)]
    bounds = {n: [b.lower.clone(), b.upper.clone()] for n, b in interval_bounds(program).items()}
    names = [layer.name for layer in layers]
    for line in stability.lines:
        sign = 1.0 if line.side == "upper" else -1.0
        at = names.index(line.layer)
        a = sign * layers[at].weight[line.unit].double()
        c = sign * float(layers[at].bias[line.unit])
        for layer in reversed(layers[:at]):
            rising, resting = (
                stability.slopes[layer.name].rising,
                stability.slopes[layer.name].resting,
            )
            for j in range(len(a)):
                lower, upper = (float(v[j]) for v in bounds[layer.name])
                d = float(rising[j] if a[j] > 0 else resting[j])
                ends = [max(lower, 0) - d * lower, max(upper, 0) - d * upper]
                below = min([*ends, 0.0]) if lower < 0 < upper else min(ends)
                t = max(ends) if a[j] > 0 else below
                c += float(a[j]) * t
                a[j] *= d
            c += float(a @ layer.bias.double())
            a = a @ layer.weight.double()
        bound = sign * (c + float(torch.maximum(a * low, a * high).sum()))
        assert abs(bound - line.bound) < 1e-9 * (1 + abs(bound))
        if line.coefficients is not None:
            torch.testing.assert_close(line.coefficients, sign * a, rtol=1e-9, atol=1e-12)
        ends_ = bounds[line.layer][1 if line.side == "upper" else 0]
        ends_[line.unit] = (
            min(ends_[line.unit], bound) if sign > 0 else max(ends_[line.unit], bound)
        )
    return {
        (p.layer, p.index, p.kind)
        for found in stability.layers
        for p in found.proved
        if p.method == "crown"
        and (
            bounds[p.layer][1][p.index] <= 1e-9
            if p.kind == "inactive"
            else bounds[p.layer][0][p.index] >= -1e-9
        )
    }


def test_shipped_lines_prove_what_they_are_shipped_for() -> None:
    proofs = 0
    for seed in range(20):
        program = dense(perceptron([8, 8, 8], 4, seed, shift=1.5), 4)
        stability = find_stable(program, NONE, CROWN, Observer())
        claimed = {
            (p.layer, p.index, p.kind)
            for found in stability.layers
            for p in found.proved
            if p.method == "crown"
        }
        assert _check(program, stability) == claimed
        assert bool(stability.lines) == bool(claimed)
        shipped = {(x.layer, x.unit) for x in stability.lines if x.coefficients is not None}
        assert shipped == {(layer, unit) for layer, unit, _ in claimed}
        proofs += len(claimed)
    assert proofs > 20


def test_a_layer_that_is_too_large_is_left_alone_and_told() -> None:
    program = residual(0)
    ledger = Ledger(program, interval_bounds(program))
    tight = tighten(ledger, most_work=10.0)
    assert tight.notes and not tight.lines
    assert tight.bounds["dense"] is ledger.bounds["dense"]


def test_what_is_not_supported_ends_a_line_without_harm() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x.flatten(1)))
            return torch.relu(self.third(torch.relu(self.second(torch.sigmoid(x)))))

    network = Strange().eval().requires_grad_(False)
    network.second.weight.data[1] = 0
    network.second.bias.data[1] = 0.5
    network.third.weight.data[0] = torch.tensor([0.0, -1.0, 0.0])
    network.third.bias.data[0] = 0.25
    stability = find_stable(program_of(network, card((1, 2, 2))), NONE, CROWN, Observer())
    assert stability["second"].stable("active") == (1,)
    assert stability["third"].stable("inactive") == (0,)
    assert len(stability["third"].proved) == 1
    assert "sigmoid" in stability.notes[0]


def test_a_channel_behind_a_residual_sum_is_proved_by_lines_alone() -> None:
    """Its bias puts zero between the two bounds."""
    network = Residual(1)
    program = program_of(network, card((2, 9, 9)))
    intervals = interval_bounds(program)
    tight = greatest(tighten(Ledger(program, intervals)).bounds["next"].upper)
    wide = greatest(intervals["next"].upper)
    assert (tight < wide).all()
    network.next.bias.data -= ((wide + tight) / 2).float()
    program = program_of(network, card((2, 9, 9)))
    plain = find_stable(program, NONE, StabilitySettings(data_images=0), Observer())
    lines = find_stable(program, NONE, CROWN, Observer())
    assert plain["next"].stable("inactive") == ()
    assert lines["next"].stable("inactive") == (0, 1, 2, 3)
    assert (evaluate(program, samples(program, 500), ["next"])["next"] <= 0).all()


@pytest.mark.slow
def test_hundreds_of_random_networks() -> None:
    for seed in range(300):
        widths = [3 + seed % 5, 3 + seed % 4, 3 + seed % 3][: 1 + seed % 3]
        _tightened(dense(perceptron(widths, 4, seed, seed % 7 / 4, seed % 2 == 0), 4, seed % 3 / 2))
