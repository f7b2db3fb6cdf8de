"""How many images the moments of a site are estimated on (appendix E.2; tiny.md 1.8)."""

import math

from torch import nn

from tinygrow.growth.patches import Layer
from tinygrow.settings.growth import StatisticsSettings

# Measured by the paper's authors, by side of the map: smaller maps hold fewer independent patches.
# Other sizes take 5, their guess.
UPDATE_CONSTANTS = {32: 1.0, 16: 1.6841667, 8: 4.0825, 4: 9.5882}
NEURON_CONSTANTS = {32: 1.0, 16: 2.0667207, 8: 4.22656, 4: 11.1267}
OTHER_SIZE = 5.0


def update_sample_size(
    second: Layer, hidden_size: tuple[int, ...], available: int, settings: StatisticsSettings
) -> int:
    """Return the images for S1 and M: by inputs and outputs of `second` and its input map."""
    entries = second.weight.shape[0] * second.weight.shape[1]
    return _size(second, entries, hidden_size, UPDATE_CONSTANTS, available, settings)


def neuron_sample_size(
    first: Layer,
    second: Layer,
    hidden_size: tuple[int, ...],
    available: int,
    settings: StatisticsSettings,
) -> int:
    """Return the images for S and N: by inputs of `first`, outputs of `second`, the map between."""
    entries = first.weight.shape[1] * second.weight.shape[0]
    return _size(second, entries, hidden_size, NEURON_CONSTANTS, available, settings)


def _size(
    layer: Layer,
    entries: int,
    map_size: tuple[int, ...],
    constants: dict[int, float],
    available: int,
    settings: StatisticsSettings,
) -> int:
    if isinstance(layer, nn.Linear):
        wanted = settings.linear_factor * entries
    else:
        c = constants.get(map_size[0], OTHER_SIZE)
        wanted = settings.conv_factor * c**2 * entries
    count = max(settings.min_images, math.floor(wanted))
    count = math.ceil(count / settings.batch_size) * settings.batch_size
    if settings.max_images:
        count = min(count, settings.max_images)
    return min(count, available)
