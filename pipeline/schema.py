"""The whole of `params.yaml` at once, so that a typo in the last stage is found before the first.

The command line calls this; no stage imports it, or every stage would hang on every setting.
"""

import re

from pipeline.params import MODEL_VALUES, Params
from pipeline.sections.data import data_settings
from pipeline.sections.network import network_settings
from tinygrow.architecture import final_architecture, seed_architecture
from tinygrow.errors import SettingError, TinygrowError
from tinygrow.growth.schedule import check_plan
from tinygrow.settings.check import MAX_SEED, between
from tinygrow.settings.compress import CompressSettings
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.network import CustomSettings, NetworkSettings
from tinygrow.settings.products import ExportSettings, ValidateSettings
from tinygrow.settings.training import FinetuneSettings

MAX_PROCESSES = 1024
TOP = ("root", "data", "models")
SECTIONS: dict[str, type] = {
    "growth": GrowthSettings,
    "finetune": FinetuneSettings,
    "compress": CompressSettings,
    "export": ExportSettings,
    "validate": ValidateSettings,
}
# DVC's addresses (`grow@NAME`, `models.NAME.growth`) and artifacts allow no more.
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")


def check(params: Params) -> None:
    """Refuse a parameter file that any stage of any model would refuse, whatever its images.

    What hangs on the images or on the machine, such as their number or a GPU, only stages can say.

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
    try:
        between("seed", seed, 0, MAX_SEED)
    except SettingError as error:
        raise params.error((*place, "seed"), f"models.{model}.{error}") from error
    processes = params.value(model, "processes")
    try:
        between("processes", processes, 0, MAX_PROCESSES)
    except SettingError as error:
        raise params.error((*place, "processes"), f"models.{model}.{error}") from error
    device = params.value(model, "device")
    if not _DEVICE.fullmatch(device):
        raise params.error(
            (*place, "device"),
            f"models.{model}.device is {device!r}; it must be auto, cpu, cuda or cuda:N",
        )
    network = network_settings(params, model)
    for name, settings in SECTIONS.items():
        params.section(model, name, settings)
    exported = params.section(model, "export", ExportSettings).precisions
    for precision in params.section(model, "validate", ValidateSettings).required:
        if precision not in exported:
            raise params.refuse((*place, "validate", "required"), precision, exported)
    _check_widths(params, model, network, data_settings(params, data).size)


def _check_widths(params: Params, model: str, network: NetworkSettings, size: int) -> None:
    """Refuse what makes no network of images of `size`, or no plan of growth.

    Code of the user's is not run for that: the stage that grows its network checks it first.
    """
    if isinstance(network, CustomSettings):
        return
    growth = params.section(model, "growth", GrowthSettings)
    key: tuple[str, ...] = ("architecture", "blocks")
    told = "architecture.blocks: "
    try:
        # Growth plans with middle widths, which neither channels nor classes change.
        final = final_architecture(network, (1, size, size), classes=2)
        key, told = ("architecture", "start"), "architecture."
        start = seed_architecture(network, final)
        told = "growth."
        multiple = growth.where.width_multiple
        key = ("growth", "extensions") if multiple == 1 else ("growth", "where", "width_multiple")
        check_plan(start, final, growth)
    except TinygrowError as error:
        raise params.error(("models", model, *key), f"models.{model}.{told}{error}") from error
