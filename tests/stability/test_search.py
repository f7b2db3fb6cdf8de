"""The ladder as a whole: three classes without overlap, witnesses that reproduce, honest notes."""

import pytest
import torch
from torch import nn

from tests.stability.networks import Residual, card, dense, perceptron, residual, samples
from tinygrow.observer import Observer
from tinygrow.settings.compress import StabilitySettings
from tinygrow.stability.evaluate import evaluate, inside, normalised
from tinygrow.stability.found import Stability
from tinygrow.stability.interval import interval_bounds
from tinygrow.stability.ledger import Ledger
from tinygrow.stability.program import Program, program_of
from tinygrow.stability.refute import look_at_data, search
from tinygrow.stability.search import find_stable


def _images(program: Program, count: int = 200) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, *program.input.shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _reproduced(program: Program, stability: Stability) -> int:
    """Check that every witness shows what it is kept for; return how many do."""
    images = stability.witnesses.images.double()
    values = evaluate(program, images, [found.layer for found in stability.layers])
    count = 0
    for found in stability.layers:
        value = values[found.layer].reshape(len(images), found.width, -1)
        for unit in found.refuted_inactive:
            assert value[stability.witnesses.above[found.layer][unit], unit].max() > 0
        for unit in found.refuted_active:
            assert value[stability.witnesses.below[found.layer][unit], unit].min() < 0
        count += len(found.refuted_inactive) + len(found.refuted_active)
    return count


@pytest.mark.parametrize("bounds", ["interval", "crown"])
def test_every_unit_is_in_one_class_of_each_kind(bounds: str) -> None:
    for seed in range(3):
        for program in (residual(seed), dense(perceptron([9, 9], 6, seed, 1.0, True), 6)):
            settings = StabilitySettings(bounds=bounds, pgd_steps=3, pgd_starts=2)
            stability = find_stable(program, _images(program), settings, Observer())
            assert [found.layer for found in stability.layers] == [
                layer.name for layer in program.layers()
            ]
            for found in stability.layers:
                proved = {p.index for p in found.proved}
                for refuted, unknown in (
                    (found.refuted_inactive, found.unknown_inactive),
                    (found.refuted_active, found.unknown_active),
                ):
                    classes = [*proved, *refuted, *unknown]
                    assert sorted(classes) == list(range(found.width))
            assert _reproduced(program, stability) > 0


def test_proofs_hold_on_every_sample_and_in_float32() -> None:
    proved = 0
    for seed in range(6):
        network = Residual(seed)
        for layer in (network.conv1, network.next, network.dense):
            layer.bias.data *= 10
        program = program_of(network, card((2, 9, 9)))
        settings = StabilitySettings(bounds="crown", data_images=0)
        stability = find_stable(program, _images(program, 0), settings, Observer())
        double = samples(program, 100, seed)
        single = inside(program, double.float())
        for found in stability.layers:
            for x in (double, single):
                value = evaluate(program, x, [found.layer])[found.layer]
                for p in found.proved:
                    assert x is double or p.in_float32
                    sign = 1.0 if p.kind == "inactive" else -1.0
                    assert float((sign * value[:, p.index]).max()) <= sign * p.bound + p.slack
                    assert sign * p.bound <= 0
                    proved += 1
    assert proved > 20


def test_data_alone_refutes_and_never_proves() -> None:
    program = dense(perceptron([30], 20, 2), 20)
    ledger = Ledger(program, interval_bounds(program))
    look_at_data(ledger, _images(program))
    assert not any(ledger.proofs.values())
    found = ledger.layer("1")
    assert len(found.refuted_inactive) + len(found.refuted_active) > 10
    assert _seen_by_hand(program, _images(program)) == (
        found.refuted_inactive,
        found.refuted_active,
    )


def _seen_by_hand(program: Program, images: torch.Tensor) -> tuple[tuple[int, ...], ...]:
    value = evaluate(program, normalised(program, images).double(), ["1"])["1"]
    above, below = (value > 0).any(0), (value < 0).any(0)
    return tuple(tuple(seen.nonzero().flatten().tolist()) for seen in (above, below))


def test_climbing_finds_what_no_image_shows() -> None:
    """A unit that only one corner of the box switches on; random images stay far from it."""
    weight = torch.randn(1, 60, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Flatten(), nn.Linear(60, 1), nn.ReLU(), nn.Linear(1, 2))
    network[1].weight.data = weight
    network[1].bias.data.zero_()
    program = dense(network.eval().requires_grad_(False), 60)
    highest = interval_bounds(program)["1"].upper
    network[1].bias.data = -0.95 * highest.float()
    program = dense(network, 60)
    ledger = Ledger(program, interval_bounds(program))
    look_at_data(ledger, _images(program, 500))
    assert ledger.open("1", "inactive") == [0]
    search(ledger, steps=1, starts=1)
    assert ledger.open("1", "inactive") == []
    x = ledger.witnesses().images[ledger.above["1"][0]]
    pixels = (x - program.input.shift) / program.input.scale
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)


def test_witnesses_stay_inside_of_the_box() -> None:
    for seed in range(4):
        program = residual(seed)
        ledger = Ledger(program, interval_bounds(program))
        search(ledger, steps=3, starts=2)
        images = ledger.witnesses().images.double()
        assert len(images)
        lower, upper = (v.reshape(-1, 1, 1) for v in (program.input.lower, program.input.upper))
        assert (images >= lower).all() and (images <= upper).all()


def test_an_unsupported_network_is_told_and_goes_on() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 3), nn.ReLU())
    program = program_of(network.eval(), card((1, 2, 2)))
    stability = find_stable(program, _images(program), StabilitySettings(), Observer())
    assert any("GELU" in note for note in stability.notes)
    assert stability["3"].proved == ()
    assert stability["3"].unknown_inactive == (0, 1, 2)
    assert stability.counts() == {"proved": 0, "refuted": 0, "unknown": 6}
