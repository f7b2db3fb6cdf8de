"""A model's `architecture` in `params.yaml`: its `kind` decides which settings it has.

The name of a function alone, `package.module:function`, is a network of the user's with all other
settings as they are by default.
"""

from pipeline.params import Params
from tinygrow.errors import SettingError
from tinygrow.settings.network import (
    CustomSettings,
    MLPSettings,
    NetworkSettings,
    ResNetSettings,
)

KINDS: dict[str, type[NetworkSettings]] = {
    "resnet": ResNetSettings,
    "mlp": MLPSettings,
    "custom": CustomSettings,
}


def network_settings(params: Params, model: str) -> NetworkSettings:
    """Return the settings of the network that `model` grows.

    Raises:
        SettingError: there is no such model, or its block is not right.
    """
    place = ("models", model, "architecture")
    name = params.text(place)
    if name is None:
        return params.choose(place, "kind", KINDS)
    try:
        return CustomSettings(network=name)
    except SettingError as error:
        raise params.error(place, f"{'.'.join(place)}: {error}") from error
