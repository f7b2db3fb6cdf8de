"""The whole of `params.yaml` at once, so that a typo in the last stage is found before the first.

The command line calls this; no stage imports it, or every stage would hang on every setting.
"""

import re

from pipeline.params import MODEL_VALUES, Params
from pipeline.sections.data import data_settings
from pipeline.sections.network import network_settings
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.products import ExportSettings, ValidateSettings
from tinygrow.settings.training import FinetuneSettings

TOP = ("root", "data", "models")
SECTIONS: dict[str, type] = {
    "growth": GrowthSettings,
    "finetune": FinetuneSettings,
    "export": ExportSettings,
    "validate": ValidateSettings,
}
# DVC's addresses (`grow@NAME`, `models.NAME.growth`) and artifacts allow no more.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")


def check(params: Params) -> None:
    """Refuse a parameter file that any stage of any model would refuse.

    Raises:
        SettingError: names the file, the line, the key, its value and what would be right.
    """
    params.check_keys((), TOP)
    for group in ("data", "models"):
        for name in params.names(group):
            if not _NAME.fullmatch(name):
                raise params.error(
                    (group, name),
                    f"{group} has the name {name!r}; take letters, digits and dashes",
                )
    for name in params.names("data"):
        data_settings(params, name)
    for model in params.names("models"):
        _check_model(params, model)


def _check_model(params: Params, model: str) -> None:
    place = ("models", model)
    params.check_keys(place, (*MODEL_VALUES, "architecture", *SECTIONS))
    data = params.value(model, "data")
    if data not in params.names("data"):
        raise params.refuse((*place, "data"), data, params.names("data"))
    seed = params.value(model, "seed")
    if seed < 0:
        raise params.error((*place, "seed"), f"models.{model}.seed is {seed}; take 0 or more")
    params.value(model, "device")
    network_settings(params, model)
    for name, settings in SECTIONS.items():
        params.section(model, name, settings)
