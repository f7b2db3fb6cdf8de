import itertools
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from pipeline import params, schema
from pipeline.closure import ROOT
from pipeline.sections.data import data_settings
from pipeline.sections.network import network_settings
from tests.pipeline.tiny import IMAGE_FOLDER, put, read_demo, read_shipped, write_params
from tinygrow.errors import SettingError, TinygrowError
from tinygrow.settings.data import Cifar10Settings, Cifar100Settings, ImageFolderSettings
from tinygrow.settings.network import CustomSettings, MLPSettings, ResNetSettings
from tinygrow.training.device import pick_device

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Edit], params.Params]:
    """Return what reads the shipped demo back after an edit of its tree."""

    def write(edit: Edit) -> params.Params:
        tree = read_demo()
        edit(tree)
        return params.read(write_params(tmp_path, tree))

    return write


def line_of(read: params.Params, key: str) -> int:
    """Return the number of the first line that gives `key` a value."""
    lines = read.path.read_text(encoding="utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.strip().startswith(f"{key}:"))


def test_the_shipped_file_is_right() -> None:
    read = params.read(ROOT / "params.yaml")
    schema.check(read)
    assert isinstance(network_settings(read, "demo"), ResNetSettings)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("roots", ".", "roots is unknown; did you mean root?"),
        ("data.my_digits", {}, "data has the name 'my_digits'; take letters, digits and dashes"),
        ("data.digits.source", "digit", "one of digits, cifar10, cifar100, image_folder; did you"),
        ("data.digits.sizes", 3, "data.digits.sizes is unknown; did you mean size?"),
        ("models.demo.exports", {}, "models.demo.exports is unknown; did you mean export?"),
        ("models.demo.data", "digit", "data is 'digit'; it must be one of digits; did you"),
        ("data.digits.seed", 2**64, "digits.seed is 18446744073709551616; it must be from 0 to"),
        ("models.demo.seed", -1, "models.demo.seed is -1; it must be from 0 to 4294967295"),
        ("models.demo.seed", 2**32, "models.demo.seed is 4294967296; it must be from 0 to"),
        ("models.demo.device", 0, "models.demo.device is 0; it must be text"),
        ("models.demo.processes", -1, "models.demo.processes is -1; it must be from 0 to 1024"),
        ("models.demo.processes", "two", "models.demo.processes is 'two'; it must be a whole"),
        (
            "models.demo.architecture.kind",
            "resnets",
            "resnet, mlp, custom; did you mean resnet?",
        ),
        ("models.demo.architecture.kind", "mlp", "architecture.base_width is unknown"),
        ("models.demo.growth.method", "tinny", "random_variance, none; did you mean tiny?"),
        ("models.demo.growth.when.trigger", "x", "one of every, plateau, significant"),
        ("models.demo.growth.where.width_multiple", 16, "of which the final widths 8 are no"),
        ("models.demo.finetune.epoch", 3, "finetune.epoch is unknown; did you mean epochs?"),
        ("models.demo.export.opset", 17, "export.opset is 17; it must be from 18 to 26"),
        ("models.demo.validate.batch_sizes", [], "validate.batch_sizes is []; it must name at"),
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
    line = line_of(read, "warmup_epochs")
    words = (
        rf"params.yaml:{line}: models.demo.finetune.training.warmup_epochs is 9999.0; it must not"
        r" exceed epochs \(15\)$"
    )
    with pytest.raises(SettingError, match=words):
        schema.check(read)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_every_form_of_a_device_is_right(
    write: Callable[[Edit], params.Params], device: str
) -> None:
    schema.check(write(lambda tree: put(tree, "models.demo.device", device)))


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "", "cuda:1\n"])
def test_a_device_of_no_kind_is_refused_by_name_and_by_growth(
    write: Callable[[Edit], params.Params], device: str
) -> None:
    with pytest.raises(SettingError) as error:
        schema.check(write(lambda tree: put(tree, "models.demo.device", device)))
    words = f"device is {device!r}; it must be auto, cpu, cuda or cuda:N"
    assert str(error.value).endswith(f"models.demo.{words}")
    with pytest.raises(TinygrowError) as refusal:
        pick_device(device)
    assert str(refusal.value) == words


@pytest.mark.parametrize(
    ("place", "value", "key", "says"),
    [
        (
            "architecture.start",
            0.3,
            "start",
            "architecture.start is 0.3, and 0.3 of a final width of 8 is 2.4; choose a start (such",
        ),
        (
            "growth.extensions",
            7,
            "extensions",
            "growth.extensions is 7, which does not divide the neurons to add at every depth (6, 6,"
            " 12, 12, 24, 24, 48, 48); numbers of extensions that work: 1, 2, 3, 6",
        ),
        (
            "architecture.blocks",
            [1, 1, 1, 1, 1, 1],
            "blocks",
            "architecture.blocks: images of 16x16 are too small for 6 stages; resize them to at"
            " least 32x32 or take fewer stages",
        ),
    ],
)
def test_what_growth_would_refuse_is_found(
    write: Callable[[Edit], params.Params], place: str, value: Any, key: str, says: str
) -> None:
    read = write(lambda tree: put(tree, f"models.demo.{place}", value))
    with pytest.raises(SettingError) as error:
        schema.check(read)
    told = f"{read.path}:{line_of(read, key)}: models.demo.{says}"
    assert str(error.value).startswith(told)


@pytest.mark.parametrize(("extensions", "right"), [(12, True), (5, False)])
def test_perceptrons_are_planned_too(
    write: Callable[[Edit], params.Params], extensions: int, right: bool
) -> None:
    def edit(tree: dict[str, Any]) -> None:
        tree["models"]["demo"]["architecture"] = {"kind": "mlp", "hidden": [64, 32], "start": 0.25}
        tree["models"]["demo"]["growth"]["extensions"] = extensions

    with nullcontext() if right else pytest.raises(SettingError, match="extensions is 5, which"):
        schema.check(write(edit))


def test_a_network_of_full_width_takes_any_number_of_extensions(
    write: Callable[[Edit], params.Params],
) -> None:
    def edit(tree: dict[str, Any]) -> None:
        tree["models"]["demo"]["architecture"]["start"] = 1.0
        tree["models"]["demo"]["growth"]["extensions"] = 7

    schema.check(write(edit))


def test_the_check_imports_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, pipeline.schema; print('torch' in sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n", done.stderr


def test_image_folders_and_perceptrons_are_read(write: Callable[[Edit], params.Params]) -> None:
    def edit(tree: dict[str, Any]) -> None:
        tree["data"]["mine"] = IMAGE_FOLDER
        tree["models"]["demo"]["architecture"] = {"kind": "mlp", "hidden": [64, 32], "start": 0.25}

    read = write(edit)
    schema.check(read)
    assert network_settings(read, "demo") == MLPSettings(hidden=(64, 32), start=0.25)
    assert data_settings(read, "mine") == ImageFolderSettings(path="inbox/mine.zip")


def test_both_archives_of_cifar_are_read(write: Callable[[Edit], params.Params]) -> None:
    shipped = read_shipped()["data"]["cifar10"]
    values = {"mirror": "inbox/copy.tar.gz", "attempts": 1, "timeout_seconds": 3}

    def edit(tree: dict[str, Any]) -> None:
        tree["data"]["one"] = shipped
        tree["data"]["other"] = shipped | {"source": "cifar100"} | values
        tree["models"]["demo"]["data"] = "other"

    read = write(edit)
    schema.check(read)
    assert data_settings(read, "one") == Cifar10Settings(validation_fraction=0.04)
    other = data_settings(read, "other")
    assert other == Cifar100Settings(validation_fraction=0.04, **values)
    assert (other.size, other.timeout_seconds) == (32, 3.0)


def test_the_size_of_cifar_is_no_setting(write: Callable[[Edit], params.Params]) -> None:
    block = read_shipped()["data"]["cifar10"] | {"size": 32}
    with pytest.raises(SettingError, match=r"data\.cifar10\.size is unknown; "):
        schema.check(write(lambda tree: put(tree, "data.cifar10", block)))


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


NETWORK = {"kind": "custom", "network": "networks.vgg:vgg", "start": 0.5, "arguments": {}}


def test_a_network_of_ones_own_has_a_block_or_just_a_name(
    write: Callable[[Edit], params.Params],
) -> None:
    arguments = {"widths": [4, 8], "hidden": 16, "deep": {"a": [None, True, 0.5, "x"]}}
    block = NETWORK | {"arguments": arguments}
    read = write(lambda tree: put(tree, "models.demo.architecture", block))
    schema.check(read)
    found = network_settings(read, "demo")
    assert found == CustomSettings(network="networks.vgg:vgg", start=0.5, arguments=arguments)

    read = write(lambda tree: put(tree, "models.demo.architecture", "networks.vgg:vgg"))
    schema.check(read)
    assert network_settings(read, "demo") == CustomSettings(network="networks.vgg:vgg")


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ("vgg", "models.demo.architecture: network is 'vgg'; it must be package.module:function"),
        (NETWORK | {"network": "vgg.py"}, "architecture.network is 'vgg.py'; it must be"),
        (NETWORK | {"start": 2.0}, "architecture.start is 2.0; it must be at most 1"),
        (NETWORK | {"width": 2}, "architecture.width is unknown"),
        (NETWORK | {"arguments": 3}, "architecture.arguments is 3; it must be a block"),
        (3, "models.demo.architecture"),
    ],
)
def test_a_mistake_in_a_network_of_ones_own_is_found(
    write: Callable[[Edit], params.Params], architecture: Any, says: str
) -> None:
    with pytest.raises(SettingError) as error:
        schema.check(write(lambda tree: put(tree, "models.demo.architecture", architecture)))
    assert says in str(error.value)
