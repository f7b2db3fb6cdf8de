import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.growth.scenes import NEVER, patterns, perceptron, quick_settings, resnet, stream
from tinygrow.architecture import Architecture
from tinygrow.errors import TinygrowError
from tinygrow.growth import extend as module
from tinygrow.growth.amplitude import Amplitude
from tinygrow.growth.grow import Grown, grow
from tinygrow.growth.log import ExtensionRow
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.observer import Observer
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.batches import DeviceImages
from tinygrow.training.evaluate import evaluate


def grown(
    settings: GrowthSettings,
    *,
    kind: str = "resnet",
    seed: int = 0,
    start: tuple[int, ...] = (1, 2),
    final: tuple[int, ...] = (4, 8),
    validation: DeviceImages | None = None,
    **options: object,
) -> Grown:
    """Grow a small network on the made-up patterns: widths 1 and 2 to 4 and 8 in 3 sweeps."""
    if kind == "resnet":
        network, architecture = resnet(middle=start, seed=seed)
    else:
        network, architecture = perceptron(start, seed=seed)
    return grow(
        network,
        architecture,
        replace(architecture, middle_widths=final),
        stream(seed=seed),
        validation or patterns(30, seed=2),
        settings,
        seed=seed,
        **options,
    )


def same_weights(a: Grown, b: Grown) -> bool:
    one, two = a.network.state_dict(), b.network.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# --- end to end


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
@pytest.mark.parametrize("method", ["tiny", "random"])
def test_growth_reaches_the_planned_widths(kind: str, method: str) -> None:
    # At the head of the perceptron there are 3 outputs, hence as many directions.
    final = (4, 8) if kind == "resnet" else (4, 5)
    result = grown(quick_settings(method=method, epochs_between=2.0), kind=kind, final=final)

    assert result.architecture.middle_widths == final
    assert not result.network.training
    rebuilt = build_network(result.architecture)
    rebuilt.load_state_dict(result.network.state_dict())
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(x), result.network(x))
    assert len(result.rows) == 1 + 6
    assert [row.extension for row in result.rows] == list(range(7))
    last = result.rows[-1]
    assert last.parameters == count_parameters(rebuilt)
    assert last.multiply_adds == count_multiply_adds(rebuilt, (3, 8, 8))
    # Three equally frequent classes, patterns that can be learnt.
    assert last.validation_accuracy > result.rows[0].validation_accuracy
    assert last.validation_accuracy > 60
    assert evaluate(result.network, patterns(30, seed=2)) == (
        last.validation_loss,
        last.validation_accuracy,
    )


def test_rows_and_curves_tell_one_story() -> None:
    result = grown(quick_settings())
    first, *rows = result.rows

    assert (first.extension, first.sweep, first.widths) == (0, 0, (1, 2))
    assert (first.epochs, first.images_seen, first.statistics_images) == (0.0, 0, 0)
    for name in ("depth", "site", "width_before", "bottleneck_before", "amplitude", "train_loss"):
        assert getattr(first, name) is None
    assert [(r.sweep, r.depth, r.width_before, r.width_after) for r in rows] == [
        (1, 2, 1, 2),
        (1, 5, 2, 4),
        (2, 2, 2, 3),
        (2, 5, 4, 6),
        (3, 2, 3, 4),
        (3, 5, 6, 8),
    ]
    assert [r.widths for r in rows] == [(2, 2), (2, 4), (3, 4), (3, 6), (4, 6), (4, 8)]
    for before, after in pairwise(result.rows):
        assert after.parameters > before.parameters
        assert after.multiply_adds > before.multiply_adds
        assert after.images_seen > before.images_seen
        # 64 images for the update, 64 for the neurons.
        assert after.statistics_images == before.statistics_images + 128
        assert after.epochs == after.images_seen / 96
    for row in rows:
        assert row.bottleneck_predicted == pytest.approx(
            row.bottleneck_before - row.power_kept, rel=1e-12
        )
        assert row.bottleneck_before > 0
        assert row.bottleneck_after is not None
        assert row.singular_values_kept == row.width_after - row.width_before
        assert row.sign in (1, -1)
        assert row.rejected is (row.amplitude == 0.0)
        assert row.loss_after <= row.loss_before
        assert row.seconds_statistics > 0
        assert row.seconds_training > 0
    assert len(result.curves) == len(rows)
    for row, curve in zip(rows, result.curves, strict=True):
        assert (curve.extension, curve.depth, curve.site) == (row.extension, row.depth, row.site)
        assert curve.kept == row.singular_values_kept
        assert curve.chosen == row.amplitude
        assert curve.singular_values[0] == row.largest_singular_value
        kept = [v**2 for v in curve.singular_values[: curve.kept]]
        dropped = [v**2 for v in curve.singular_values[curve.kept :]]
        assert sum(kept) == pytest.approx(row.power_kept, rel=1e-9)
        assert sum(dropped) == pytest.approx(row.power_dropped, rel=1e-9, abs=1e-12)
        assert len(dropped) == row.singular_values_dropped
        assert list(curve.singular_values) == sorted(curve.singular_values, reverse=True)
        assert curve.losses[0] == row.loss_before
        assert curve.losses[curve.amplitudes.index(curve.chosen)] == row.loss_after


def test_random_growth_logs_its_search_but_no_bottleneck() -> None:
    result = grown(quick_settings(method="random"))

    for row in result.rows[1:]:
        assert row.bottleneck_before is row.bottleneck_predicted is row.bottleneck_after is None
        assert row.largest_singular_value is row.power_kept is None
        assert row.amplitude is not None
    assert result.rows[-1].statistics_images == 0
    assert all(curve.singular_values == () for curve in result.curves)


def test_the_observer_hears_of_every_image_and_extension() -> None:
    class Listener(Observer):
        def __init__(self) -> None:
            self.images, self.lines, self.total, self.ended = 0, [], 0, 0

        def begin(self, title: str, total: int, unit: str) -> None:
            self.total = total

        def advance(self, count: int = 1, **facts: float) -> None:
            self.images += count

        def end(self) -> None:
            self.ended += 1

        def say(self, line: str) -> None:
            self.lines.append(line)

    listener = Listener()
    result = grown(quick_settings(), observer=listener)

    assert listener.images == result.rows[-1].images_seen
    assert listener.total == 6 * 48
    extensions = [line for line in listener.lines if line.startswith("extension")]
    assert len(extensions) == 6
    assert "width 1 -> 2" in extensions[0]
    assert [line for line in listener.lines if "sweeps took" in line] == [listener.lines[2]]
    assert listener.ended == 1


def test_a_snapshot_rebuilds_the_network_of_its_row() -> None:
    kept: list[tuple[int, Architecture, dict]] = []

    def snapshot(
        architecture: Architecture, network: nn.Module, rows: Sequence[ExtensionRow]
    ) -> None:
        state = {k: v.clone() for k, v in network.state_dict().items()}
        kept.append((rows[-1].extension, architecture, state))

    result = grown(quick_settings(), snapshot=snapshot)

    # 0 is the seed network.
    assert [extension for extension, _, _ in kept] == [0, 1, 2, 3, 4, 5, 6]
    for (_, architecture, state), row in zip(kept, result.rows, strict=True):
        assert architecture.middle_widths == row.widths
        network = build_network(architecture)
        network.load_state_dict(state)
        assert count_parameters(network) == row.parameters
        assert evaluate(network, patterns(30, seed=2))[0] == row.validation_loss


def test_a_plan_that_is_not_whole_is_refused_before_anything_happens() -> None:
    with pytest.raises(TinygrowError, match=r"extensions is 5.*work: 1, 3"):
        grown(quick_settings(extensions=5))


def test_fewer_directions_than_neurons_wanted_add_fewer_neurons() -> None:
    # Behind the last hidden layer there are 3 logits, whose gradients sum to zero: 2 directions.
    # 4 are wanted at each visit.
    result = grown(quick_settings(), kind="mlp", final=(4, 14))

    last_layer = [row for row in result.rows if row.depth == 2]
    assert [row.width_after - row.width_before for row in last_layer] == [2, 2, 2]
    assert [row.singular_values_kept for row in last_layer] == [2, 2, 2]
    assert result.architecture.middle_widths == (4, 8)
    assert result.network.layers[1].out_features == 8


# --- what may and may not decide


def test_the_same_seed_gives_the_same_weights() -> None:
    settings = quick_settings(extensions=1)

    first, again, other = (grown(settings, seed=seed) for seed in (3, 3, 4))

    assert same_weights(first, again)
    assert not same_weights(first, other)
    assert [r.loss_after for r in first.rows] == [r.loss_after for r in again.rows]


def test_the_global_generator_decides_nothing() -> None:
    settings = quick_settings(extensions=1, method="random")
    torch.manual_seed(0)
    first = grown(settings)
    torch.manual_seed(1)

    assert same_weights(first, grown(settings))


def test_validation_images_decide_nothing() -> None:
    settings = quick_settings(extensions=1)
    other = patterns(17, seed=8)
    other.labels = other.labels.flip(0)
    other.images_NHWC = 255 - other.images_NHWC

    seen, scrambled = grown(settings), grown(settings, validation=other)

    assert same_weights(seen, scrambled)
    assert seen.rows[-1].validation_loss != scrambled.rows[-1].validation_loss


# --- rejections


def test_rejections_that_preserve_follow_the_plan_and_those_that_skip_stay() -> None:
    settings = quick_settings()
    never = replace(settings.amplitude, min_gain=NEVER)

    preserved = grown(replace(settings, amplitude=never))
    skipped = grown(replace(settings, amplitude=replace(never, when_rejected="skip")))

    assert preserved.architecture.middle_widths == (4, 8)
    assert skipped.architecture.middle_widths == (1, 2)
    for result in (preserved, skipped):
        assert all(row.rejected for row in result.rows[1:])
        assert all(row.amplitude == 0.0 for row in result.rows[1:])
    assert all(row.width_before == row.width_after for row in skipped.rows[1:])


def test_a_skipped_extension_is_made_up_for_at_the_next_visit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0
    original = module.choose_amplitude

    def reject_the_first(*arguments: object) -> Amplitude:
        nonlocal calls
        calls += 1
        if calls == 1:
            return Amplitude(None, 1, 0.0, (0.0,), (1.0,))
        return original(*arguments)

    monkeypatch.setattr(module, "choose_amplitude", reject_the_first)
    result = grown(quick_settings())

    widths = [(r.width_before, r.width_after) for r in result.rows[1:] if r.depth == 2]
    assert widths == [(1, 1), (1, 3), (3, 4)]
    assert result.rows[3].singular_values_kept == 2
    assert result.architecture.middle_widths == (4, 8)


# --- training in between


@pytest.mark.parametrize("growth", ["sqrt_parameters", "constant"])
def test_rows_show_the_batch_size_of_their_training(growth: str) -> None:
    result = grown(quick_settings(batch_growth=growth))

    for row in result.rows[1:]:
        ratio = row.parameters / result.rows[0].parameters
        wanted = 16 * math.sqrt(ratio) if growth == "sqrt_parameters" else 16
        assert row.batch_size == round(wanted)


@pytest.mark.parametrize("epochs", [0.25, 0.5, 1.0])
def test_image_passes_follow_the_plan_to_half_a_batch(epochs: float) -> None:
    result = grown(quick_settings(epochs_between=epochs))

    for row in result.rows[1:]:
        exact = row.extension * epochs * 96
        assert abs(row.images_seen - exact) <= 0.5 * row.batch_size + 1


def test_every_control_sees_as_many_training_images() -> None:
    tiny, random, none, wide = (
        grown(quick_settings(method="tiny")),
        grown(quick_settings(method="random")),
        grown(quick_settings(method="none")),
        grown(quick_settings(method="tiny"), start=(4, 8)),
    )

    passes = [result.rows[-1].images_seen for result in (tiny, random, none, wide)]
    assert passes[2] == passes[3] == 6 * 48
    assert all(abs(n - 6 * 48) <= 0.5 * tiny.rows[-1].batch_size + 1 for n in passes[:2])
    assert none.architecture.middle_widths == (1, 2)
    assert wide.architecture.middle_widths == (4, 8)
    for control in (none, wide):
        assert len(control.rows) == 7
        assert not control.curves
        assert len({row.parameters for row in control.rows}) == 1
        assert all(row.bottleneck_before is None for row in control.rows)
        assert control.rows[-1].statistics_images == 0
        assert {row.batch_size for row in control.rows[1:]} == {16}


def test_training_may_wait_for_the_end_of_a_sweep() -> None:
    result = grown(quick_settings(train_after="sweep", epochs_between=1.0))

    trained_rows = [row.extension for row in result.rows if row.train_loss is not None]
    assert trained_rows == [2, 4, 6]
    # Three trainings of one epoch.
    assert abs(result.rows[-1].images_seen - 3 * 96) <= 16
    assert result.architecture.middle_widths == (4, 8)


@pytest.mark.parametrize("train_after", ["site", "sweep"])
def test_the_moving_average_widens_with_the_network(train_after: str) -> None:
    training = TrainingSettings(batch_size=16, learning_rate=0.05, ema=0.8)
    settings = quick_settings(training=training, train_after=train_after, epochs_between=3.0)
    result = grown(settings)

    assert result.architecture.middle_widths == (4, 8)
    assert result.rows[-1].parameters == count_parameters(build_network(result.architecture))
    assert result.rows[-1].validation_accuracy > 60
