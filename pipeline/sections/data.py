"""A data set's block of `params.yaml`: its `source` decides which settings it has."""

from pipeline.params import Params
from tinygrow.settings.data import (
    Cifar10Settings,
    Cifar100Settings,
    DataSettings,
    DigitsSettings,
    ImageFolderSettings,
)

SOURCES: dict[str, type[DataSettings]] = {
    "digits": DigitsSettings,
    "cifar10": Cifar10Settings,
    "cifar100": Cifar100Settings,
    "image_folder": ImageFolderSettings,
}


def data_settings(params: Params, name: str) -> DataSettings:
    """Return the settings of the data set `name`.

    Raises:
        SettingError: there is no such data set, or its block is not right.
    """
    return params.choose(("data", name), "source", SOURCES, ignore=("path",))
