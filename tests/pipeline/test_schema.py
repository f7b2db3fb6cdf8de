import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import params, schema
from pipeline.sections.data import data_settings
from pipeline.sections.network import network_settings
from tests.pipeline.closure import ROOT
from tests.pipeline.tiny import IMAGE_FOLDER, put, read_shipped, write_params
from tinygrow.errors import SettingError
from tinygrow.settings.data import ImageFolderSettings
from tinygrow.settings.network import MLPSettings, ResNetSettings

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Edit], params.Params]:
    """Return what reads the shipped file back after an edit of its tree."""

    def write(edit: Edit) -> params.Params:
        tree = read_shipped()
        edit(tree)
        return params.read(write_params(tmp_path, tree))

    return write


def test_the_shipped_file_is_right() -> None:
    read = params.read(ROOT / "params.yaml")
    schema.check(read)
    assert isinstance(network_settings(read, "demo"), ResNetSettings)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("roots", ".", "roots is unknown; did you mean root?"),
        ("data.my_digits", {}, "data has the name 'my_digits'; take letters, digits and dashes"),
        ("data.digits.source", "digit", "data.digits.source is 'digit'; did you mean digits?"),
        ("data.digits.sizes", 3, "data.digits.sizes is unknown; did you mean size?"),
        ("models.demo.exports", {}, "models.demo.exports is unknown; did you mean export?"),
        ("models.demo.data", "digit", "models.demo.data is 'digit'; did you mean digits?"),
        ("models.demo.seed", -1, "models.demo.seed is -1; take 0 or more"),
        ("models.demo.device", 0, "models.demo.device is 0; it must be text"),
        ("models.demo.architecture.kind", "resnets", "kind is 'resnets'; did you mean resnet?"),
        ("models.demo.architecture.kind", "mlp", "architecture.base_width is unknown"),
        ("models.demo.growth.method", "tinny", "growth.method is 'tinny'; did you mean tiny?"),
        ("models.demo.finetune.epoch", 3, "finetune.epoch is unknown; did you mean epochs?"),
        ("models.demo.export.opset", 17, "export.opset is 17; it must be from 18 to 26"),
        ("models.demo.validate.batch_sizes", [], "validate.batch_sizes is 0; it must be at least"),
    ],
)
def test_a_mistake_anywhere_is_found(
    write: Callable[[Edit], params.Params], place: str, value: Any, says: str
) -> None:
    with pytest.raises(SettingError) as error:
        schema.check(write(lambda tree: put(tree, place, value)))
    assert says in str(error.value)


@pytest.mark.parametrize("section", ["architecture", "growth", "finetune", "export", "validate"])
def test_a_missing_section_is_found(write: Callable[[Edit], params.Params], section: str) -> None:
    with pytest.raises(SettingError, match=rf"models.demo.{section}(.kind)? is missing; add `"):
        schema.check(write(lambda tree: tree["models"]["demo"].pop(section)))


def test_a_setting_that_hangs_on_two_keys_is_named_with_its_section(
    write: Callable[[Edit], params.Params],
) -> None:
    read = write(lambda tree: put(tree, "models.demo.finetune.training.warmup_epochs", 9999.0))
    with pytest.raises(SettingError, match=r"models.demo.finetune: warmup_epochs is 9999.0; it"):
        schema.check(read)


def test_image_folders_and_perceptrons_are_read(write: Callable[[Edit], params.Params]) -> None:
    def edit(tree: dict[str, Any]) -> None:
        tree["data"]["mine"] = IMAGE_FOLDER
        tree["models"]["demo"]["architecture"] = {"kind": "mlp", "hidden": [64, 32], "start": 0.25}

    read = write(edit)
    schema.check(read)
    assert network_settings(read, "demo") == MLPSettings(hidden=(64, 32), start=0.25)
    assert data_settings(read, "mine") == ImageFolderSettings(path="inbox/mine.zip")


def test_the_example_in_the_comment_is_complete(tmp_path: Path) -> None:
    lines = TEXT.splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip() == "# mine:")
    comment = itertools.takewhile(lambda line: line.strip().startswith("#"), lines[first:])
    block = "\n".join("  " + line.strip().removeprefix("# ") for line in comment)
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("\nmodels:\n", f"\n{block}\n\nmodels:\n"), encoding="utf-8")
    read = params.read(path)
    schema.check(read)
    assert data_settings(read, "mine") == ImageFolderSettings(path="inbox/mine.zip")
