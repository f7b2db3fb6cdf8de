"""Overrides are what `dvc exp run` takes, and leave a file that every stage accepts."""

from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides

from pipeline import params, schema
from pipeline.closure import ROOT
from pipeline.overrides import (
    TOO_LONG,
    advise,
    advise_finetuning,
    applied,
    command,
    fewer_epochs,
)
from tests.pipeline.tiny import read_shipped, write_params
from tinygrow.settings.training import FinetuneSettings, TrainingSettings
from tinygrow.training.estimate import FinetuneEstimate

LONG = FinetuneEstimate(
    device="cpu",
    parameters=12_773_156,
    epochs=250,
    images=12_000_000,
    images_per_second=12.0,
    seconds_training=1_000_000.0,
    seconds_evaluation=0.0,
    multiply_adds=2e16,
    longest_epochs=500,
    longest_seconds=2_000_000.0,
)


def taken_by_dvc(folder: Path, overrides: dict[str, Any]) -> params.Params:
    """Return the shipped file after DVC has changed it by the printed command."""
    path = write_params(folder, read_shipped())
    words = command(overrides, "demo").split()
    assert words[:3] == ["dvc", "exp", "run"]
    assert words[-1] == "report@demo"
    apply_overrides(path, words[4:-1:2])
    assert set(words[3:-1:2]) == {"-S"}
    return params.read(path)


def test_overrides_are_the_words_of_dvc(tmp_path: Path) -> None:
    overrides = {
        "models.demo.architecture.base_width": 16,
        "models.demo.architecture.start": 0.0625,
        "models.demo.growth.extensions": 5,
        "models.demo.growth.method": "none",
    }
    taken = taken_by_dvc(tmp_path, overrides)
    schema.check(taken)
    assert taken.tree == applied(params.read(tmp_path / "params.yaml"), overrides).tree
    assert taken.tree["models"]["demo"]["architecture"]["start"] == 0.0625


def test_applying_overrides_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    values = params.read(write_params(tmp_path, read_shipped()))
    changed = applied(values, {"models.demo.finetune.epochs": 3})
    assert changed.section("demo", "finetune", FinetuneSettings).epochs == 3
    assert values.section("demo", "finetune", FinetuneSettings).epochs == 15


def finetuning(**changes: Any) -> FinetuneSettings:
    training = TrainingSettings(warmup_epochs=changes.pop("warmup_epochs", 0.0))
    return FinetuneSettings(**{"epochs": 250, "training": training, **changes})


@pytest.mark.parametrize(
    ("settings", "epochs", "names"),
    [
        (finetuning(), 30, {"epochs": 30}),
        (finetuning(epochs=30), 30, {}),
        (finetuning(max_epochs=500), 30, {"epochs": 30, "max_epochs": 0}),
        (finetuning(warmup_epochs=5.0), 30, {"epochs": 30}),
        (finetuning(warmup_epochs=5.0), 20, {"epochs": 20, "training.warmup_epochs": 4.0}),
    ],
)
def test_fewer_epochs(settings: FinetuneSettings, epochs: int, names: dict[str, Any]) -> None:
    wanted = {f"models.m.finetune.{name}": value for name, value in names.items()}
    assert fewer_epochs("m", settings, epochs) == wanted


def long(**changes: Any) -> FinetuneEstimate:
    return FinetuneEstimate(**{name: getattr(LONG, name) for name in LONG.__slots__} | changes)


def with_finetuning(folder: Path, **changes: Any) -> params.Params:
    tree = read_shipped()
    tree["models"]["demo"]["finetune"] |= changes
    tree["models"]["demo"]["finetune"]["training"] |= {"schedule": "constant"}
    return params.read(write_params(folder, tree))


@pytest.mark.parametrize(
    ("device", "seconds", "told"),
    [("cpu", TOO_LONG + 1, True), ("cpu", TOO_LONG, False), ("cuda", 10 * TOO_LONG, False)],
)
def test_advice_is_for_long_work_on_a_cpu(
    tmp_path: Path, device: str, seconds: float, told: bool
) -> None:
    values = with_finetuning(tmp_path, epochs=250)
    lines = advise_finetuning(values, "demo", long(device=device, seconds_training=seconds))
    assert bool(lines) == told


def test_advice_on_fine_tuning_fits_into_an_hour(tmp_path: Path) -> None:
    values = with_finetuning(tmp_path, epochs=2500, max_epochs=3000)
    lines = advise_finetuning(values, "demo", long(epochs=2500))
    # 400 s an epoch.
    overrides = {"models.demo.finetune.epochs": 9, "models.demo.finetune.max_epochs": 0}
    assert lines == [
        "this fine-tuning is sized for a GPU",
        f"on this CPU try: {command(overrides, 'demo')} (about 60 min)",
    ]
    schema.check(taken_by_dvc(tmp_path, overrides))


def test_no_fewer_epochs_than_one_are_advised(tmp_path: Path) -> None:
    values = with_finetuning(tmp_path, epochs=1)
    assert advise_finetuning(values, "demo", long(epochs=1)) == []


# --- blocks that models share

SHARED = """
models:
  one: &one
    seed: 0
    growth: &growth {extensions: 3, training: {batch_size: 8}}
  two:
    <<: *one
    growth: {<<: *growth, extensions: 5}
  three: {<<: *one, seed: 1}
data: {}
"""


@pytest.mark.parametrize(
    ("key", "works"),
    [
        ("models.one.seed", True),
        ("models.one.growth.extensions", False),  # of three as well
        ("models.two.growth.extensions", True),
        ("models.two.growth.training.batch_size", False),  # of all
        ("models.three.seed", True),
        ("models.three.growth.extensions", False),
    ],
)
def test_shared_blocks_get_no_command_that_dvc_does_not_heed(
    tmp_path: Path, key: str, works: bool
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(SHARED)
    before = params.read(path)
    line = advise(before, "one", {key: 7}, 60.0)
    if works:
        assert line == f"on this CPU try: dvc exp run -S {key}=7 report@one (about 60 s)"
    else:
        assert line == (
            f"on this CPU try, in blocks of its own ({path} shares them between models, and"
            f" `dvc exp run -S` cannot change such blocks): {key}=7 (about 60 s)"
        )
    wanted = applied(before, {key: 7}).tree
    apply_overrides(path, [f"{key}=7"])
    assert (params.read(path).tree == wanted) == works


def test_overrides_reach_one_model_of_those_that_share(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(SHARED)
    tree = applied(params.read(path), {"models.three.growth.training.batch_size": 7}).tree
    sizes = [tree["models"][m]["growth"]["training"]["batch_size"] for m in ("one", "two", "three")]
    assert sizes == [8, 8, 7]


def test_experiments_that_share_blocks_are_known() -> None:
    values = params.read(ROOT / "experiments" / "cifar10" / "params.yaml")
    line = advise(values, "tiny-s0", {"models.tiny-s0.architecture.base_width": 8}, 60.0)
    assert "in blocks of its own (" in line
