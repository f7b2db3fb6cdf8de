import pytest
from torch import nn

from tinygrow.growth.sample_size import neuron_sample_size, update_sample_size
from tinygrow.settings.growth import StatisticsSettings

ONE = StatisticsSettings(batch_size=2)
"""Mini-batches of two: rounding up hides little of the formula."""

PLENTY = 10**9


def pair(width: int, middle: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    return nn.Conv2d(width, middle, 3, padding=1), nn.Conv2d(middle, width, 3, padding=1)


@pytest.mark.parametrize(
    ("width", "side", "images"),
    # tiny.md 1.8: depths 2, 7, 12 and 17 of ResNet-18 with lu 0.5.
    [(64, 32, 2_048), (128, 16, 34_990), (256, 8, 585_356), (512, 4, 16_227_000)],
)
def test_images_for_new_neurons_at_the_depths_of_resnet18(
    width: int, side: int, images: int
) -> None:
    first, second = pair(width, width // 4)

    count = neuron_sample_size(first, second, (side, side), PLENTY, ONE)

    assert count == pytest.approx(images, rel=1e-4, abs=2)
    assert neuron_sample_size(first, second, (side, side), 45_000, ONE) == min(count, 45_000)


def test_images_are_rounded_up_to_whole_mini_batches() -> None:
    hundreds = StatisticsSettings()

    assert neuron_sample_size(*pair(64, 16), (32, 32), PLENTY, hundreds) == 2_100
    assert neuron_sample_size(*pair(128, 32), (16, 16), PLENTY, hundreds) == 35_000


def test_the_width_between_the_layers_counts_for_the_update_alone() -> None:
    narrow, wide = pair(64, 16), pair(64, 48)

    sizes = [update_sample_size(second, (32, 32), PLENTY, ONE) for _, second in (narrow, wide)]

    assert sizes == [64 * 16 // 2, 64 * 48 // 2]
    assert len({neuron_sample_size(*p, (32, 32), PLENTY, ONE) for p in (narrow, wide)}) == 1


@pytest.mark.parametrize(
    ("side", "update", "neurons"),
    # The squares of the authors' measured constants, times 16 * 64 / 2 and 64 * 64 / 2; 5 * 5 for
    # maps that they did not measure.
    [
        (32, 512, 2_048),
        (16, 512 * 1.6841667**2, 2_048 * 2.0667207**2),
        (8, 512 * 4.0825**2, 2_048 * 4.22656**2),
        (4, 512 * 9.5882**2, 2_048 * 11.1267**2),
        (28, 512 * 25, 2_048 * 25),
    ],
)
def test_smaller_maps_need_more_images(side: int, update: float, neurons: float) -> None:
    first, second = pair(64, 16)

    assert update_sample_size(second, (side, side), PLENTY, ONE) == pytest.approx(update, abs=2)
    assert neuron_sample_size(first, second, (side, side), PLENTY, ONE) == pytest.approx(
        neurons, abs=2
    )


def test_linear_layers_need_two_images_an_entry() -> None:
    first, second = nn.Linear(30, 8), nn.Linear(8, 20)

    assert update_sample_size(second, (), PLENTY, ONE) == 2 * 8 * 20
    assert neuron_sample_size(first, second, (), PLENTY, ONE) == 2 * 30 * 20


@pytest.mark.parametrize(
    ("settings", "available", "images"),
    [
        (StatisticsSettings(), PLENTY, 200),
        (StatisticsSettings(batch_size=64), PLENTY, 256),
        (StatisticsSettings(min_images=201), PLENTY, 300),
        (StatisticsSettings(), 150, 150),
        (StatisticsSettings(max_images=250, conv_factor=9.0), PLENTY, 250),
        (StatisticsSettings(max_images=250, conv_factor=9.0), 249, 249),
        (StatisticsSettings(conv_factor=8.0), PLENTY, 600),
    ],
)
def test_lower_end_upper_end_and_training_set_bound_the_images(
    settings: StatisticsSettings, available: int, images: int
) -> None:
    # 8 * 8 entries on 32x32 maps: 64 * factor.
    assert neuron_sample_size(*pair(8, 2), (32, 32), available, settings) == images
