"""A model's `architecture` in `params.yaml`: its `kind` decides which settings it has."""

from pipeline.params import Params
from tinygrow.settings.network import MLPSettings, NetworkSettings, ResNetSettings

KINDS: dict[str, type[NetworkSettings]] = {"resnet": ResNetSettings, "mlp": MLPSettings}


def network_settings(params: Params, model: str) -> NetworkSettings:
    """Return the settings of the network that `model` grows.

    Raises:
        SettingError: there is no such model, or its block is not right.
    """
    return params.choose(("models", model, "architecture"), "kind", KINDS)
