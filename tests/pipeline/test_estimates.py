"""What is advised for a CPU is short, and every stage accepts it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from pipeline import estimates, params, schema
from pipeline.closure import ROOT
from pipeline.estimates import (
    Images,
    advise_growth,
    finetune_seconds,
    growth_seconds,
    smaller_model,
    what_fits,
)
from pipeline.overrides import SHORT, TOO_LONG, applied
from tests.growth.scenes import stream
from tests.pipeline.test_overrides import taken_by_dvc
from tests.pipeline.tiny import IMAGE_FOLDER, put, read_shipped, write_params
from tinygrow.growth.calibration import Rates, Speeds
from tinygrow.growth.cost import plan_cost
from tinygrow.growth.estimate import GrowthEstimate, predict
from tinygrow.settings.growth import GrowthSettings

# Two cores of a small server: 20 thousand million multiply-adds of training a second at any width.
AN_ADD = 1 / 20e9
SPEEDS = Speeds(
    training=((1e8, 1e8 * 3 * AN_ADD), (6e8, 6e8 * 3 * AN_ADD)),
    reference=3e8,
    forward=AN_ADD,
    extensions=(Rates(300_000, AN_ADD, AN_ADD, 3 * AN_ADD, AN_ADD),),
    seconds=20.0,
)
CIFAR = Images((3, 32, 32), 10, 45_000, 5_000)

Write = Callable[..., params.Params]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return what reads the shipped file back with changes to its model `demo`, grown large."""

    def write(**changes: Any) -> params.Params:
        tree = read_shipped()
        tree["models"] = {"demo": tree["models"]["demo"]}
        tree["data"] = {"mine": dict(IMAGE_FOLDER)}
        put(tree, "models.demo.data", "mine")
        put(tree, "models.demo.architecture.base_width", 64)
        put(tree, "models.demo.growth.extensions", 16)
        put(tree, "models.demo.growth.statistics.max_images", 0)
        put(tree, "models.demo.growth.amplitude.images", 1000)
        put(tree, "models.demo.finetune.epochs", 250)
        for place, value in changes.items():
            put(tree, place.replace("__", "."), value)
        return params.read(write_params(tmp_path, tree))

    return write


def whole(values: params.Params, images: Images) -> float:
    return growth_seconds(values, "demo", SPEEDS, images) + finetune_seconds(
        values, "demo", SPEEDS, images
    )


CASES: list[dict[str, Any]] = [
    {},
    {"models__demo__architecture__start": 0.015625, "models__demo__growth__extensions": 21},
    {"models__demo__architecture__start": 1.0, "models__demo__growth__extensions": 7},
    {"models__demo__architecture__start": 0.75},
    {"models__demo__architecture__base_width": 48, "models__demo__growth__extensions": 12},
    {"models__demo__growth__epochs_between": 1.0},
    {"models__demo__growth__method": "none"},
    {"models__demo__growth__train_after": "sweep"},
    {"models__demo__finetune__training__warmup_epochs": 100.0},
    {
        "models__demo__finetune__training__schedule": "constant",
        "models__demo__finetune__max_epochs": 500,
    },
    {"data__mine__max_train_images": 30_000},
]


@pytest.mark.parametrize("changes", CASES, ids=lambda changes: ",".join(changes) or "as it is")
def test_what_fits_is_short_and_right(write: Write, changes: dict[str, Any]) -> None:
    values = write(**changes)
    schema.check(values)
    assert whole(values, CIFAR) > TOO_LONG
    fit = what_fits(values, "demo", SPEEDS, CIFAR)
    assert fit is not None
    overrides, seconds = fit
    assert 0 < seconds <= SHORT
    schema.check(applied(values, overrides))
    # Nothing is overridden by what it is.
    for key, value in overrides.items():
        block: Any = values.tree
        for name in key.split("."):
            block = block[name]
        assert block != value, key


def test_the_shipped_file_takes_the_overrides_by_dvc(tmp_path: Path) -> None:
    values = params.read(ROOT / "params.yaml")
    for model in values.names("models"):
        fit = what_fits(values, model, SPEEDS, CIFAR)
        assert fit is not None
        schema.check(taken_by_dvc(tmp_path, fit[0]))


@pytest.mark.parametrize("folder", sorted(ROOT.glob("experiments/*/params.yaml")))
def test_every_experiment_can_be_made_to_fit(folder: Path) -> None:
    values = params.read(folder)
    for model in values.names("models")[::5]:
        fit = what_fits(values, model, SPEEDS, CIFAR)
        assert fit is not None
        schema.check(applied(values, fit[0]))


def test_widths_go_first_and_images_last(write: Write) -> None:
    values = write()
    place = "models.demo"

    def fit(faster: float) -> dict[str, Any]:
        quick = replace(
            SPEEDS,
            training=tuple((cost, seconds / faster) for cost, seconds in SPEEDS.training),
            forward=SPEEDS.forward / faster,
            extensions=tuple(
                Rates(r.size, *(getattr(r, n) / faster for n in Rates.__slots__[1:]))
                for r in SPEEDS.extensions
            ),
        )
        found = what_fits(values, "demo", quick, CIFAR)
        assert found is not None
        return found[0]

    wide, narrow, poor = fit(200), fit(2), fit(0.3)
    assert wide == {f"{place}.architecture.base_width": 32, f"{place}.growth.extensions": 12}
    assert narrow[f"{place}.architecture.base_width"] in (8, 16)
    assert narrow[f"{place}.finetune.epochs"] == 30
    assert "data.mine.max_train_images" not in narrow
    assert poor["data.mine.max_train_images"] <= 20_000


def test_data_without_the_key_keep_their_images(write: Write) -> None:
    values = write()
    tree = dict(values.tree)
    tree["data"] = {"mine": read_shipped()["data"]["digits"]}
    digits = params.Params(tree, values.path, "")
    for slow in (1, 100):
        speeds = replace(SPEEDS, training=tuple((c, slow * s) for c, s in SPEEDS.training))
        fit = what_fits(digits, "demo", speeds, CIFAR)
        assert fit is not None
        assert not any(key.startswith("data.") for key in fit[0])
        schema.check(applied(digits, fit[0]))


def test_fewer_images_count_in_time(write: Write) -> None:
    values = write()
    half = replace(CIFAR, train=22_500, validation=2_500)
    assert finetune_seconds(values, "demo", SPEEDS, half) == pytest.approx(
        finetune_seconds(values, "demo", SPEEDS, CIFAR) / 2
    )


def test_perceptrons_keep_their_widths(write: Write) -> None:
    mlp = {"kind": "mlp", "hidden": [4096, 4096], "start": 0.25}
    values = write(models__demo__architecture=mlp)
    speeds = replace(SPEEDS, training=tuple((c, 50 * s) for c, s in SPEEDS.training))
    fit = what_fits(values, "demo", speeds, CIFAR)
    assert fit is not None
    assert not any("architecture" in key for key in fit[0])
    assert fit[0]["models.demo.finetune.epochs"] <= 30
    schema.check(applied(values, fit[0]))


def test_a_model_that_is_small_already_has_nothing_to_give_up(write: Write) -> None:
    values = write(
        models__demo__architecture={"kind": "mlp", "hidden": [8], "start": 0.25},
        models__demo__growth__extensions=2,
        models__demo__growth__statistics__max_images=400,
        models__demo__growth__amplitude__images=300,
        models__demo__finetune__epochs=1,
        models__demo__finetune__training__warmup_epochs=0.0,
    )
    assert what_fits(values, "demo", SPEEDS, replace(CIFAR, train=900, validation=100)) is None


# --- another model


def two_models(values: params.Params, **other: Any) -> params.Params:
    tree = {"data": values.tree["data"], "models": dict(values.tree["models"])}
    small = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())["models"]["demo"]
    small["architecture"] |= other
    tree["models"]["small"] = small | {"data": "mine"}
    return params.Params(tree, values.path, "")


def test_a_much_smaller_model_is_named(write: Write) -> None:
    assert smaller_model(two_models(write()), "demo", CIFAR) == "small"


def test_a_model_alone_is_not_named(write: Write) -> None:
    assert smaller_model(write(), "demo", CIFAR) is None


def test_a_model_of_nearly_the_size_is_not_named(write: Write) -> None:
    assert smaller_model(two_models(write(), base_width=64), "demo", CIFAR) is None


def test_a_model_that_these_images_are_too_small_for_is_not_named(write: Write) -> None:
    values = two_models(write(), blocks=[1] * 8)
    assert smaller_model(values, "demo", CIFAR) is None


# --- what is said


def estimate_of(values: params.Params, device: str = "cpu") -> GrowthEstimate:
    start, final = estimates._architectures(values, "demo", CIFAR)
    settings = values.section("demo", "growth", GrowthSettings)
    plan = plan_cost(start, final, settings, CIFAR.train)
    return predict(plan, SPEEDS, validation_images=CIFAR.validation, device=device)


def advice(values: params.Params, device: str = "cpu") -> list[str]:
    images = stream()
    before = torch.get_rng_state()
    final = estimates._architectures(values, "demo", CIFAR)[1]
    lines = advise_growth(
        values, "demo", estimate_of(values, device), images, final, CIFAR.validation
    )
    assert torch.equal(torch.get_rng_state(), before)
    return lines


@pytest.fixture
def long_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few images pass for all of CIFAR, and the narrow network for as fast as the others."""
    monkeypatch.setattr("tinygrow.training.batches.TrainingStream.__len__", lambda _: CIFAR.train)
    monkeypatch.setattr(estimates, "with_training_of", lambda speeds, *_: speeds)


@pytest.mark.usefixtures("long_stream")
def test_a_model_sized_for_a_gpu_is_told_what_fits(write: Write) -> None:
    values = two_models(write())
    seconds = whole(values, CIFAR)
    first, second, third = advice(values)
    assert first == (
        f"with 250 epochs of fine-tuning this model takes about {seconds / 3600:.1f} h: it is sized"
        " for a GPU"
    )
    assert second.startswith("on this CPU try: dvc exp run -S models.demo.architecture.base_width=")
    assert " report@demo (about " in second
    assert third == "or small, a smaller model: dvc repro report@small"


@pytest.mark.usefixtures("long_stream")
def test_nothing_is_said_on_a_gpu(write: Write) -> None:
    assert advice(write(), "cuda") == []


@pytest.mark.usefixtures("long_stream")
def test_nothing_is_said_of_a_model_that_fits(write: Write) -> None:
    values = write(
        models__demo__architecture__base_width=8,
        models__demo__growth__extensions=6,
        models__demo__growth__statistics__max_images=400,
        models__demo__finetune__epochs=20,
    )
    assert whole(values, CIFAR) < TOO_LONG
    assert advice(values) == []


def test_the_narrow_network_is_measured(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(speeds: Speeds, architecture: Any, *_: Any) -> Speeds:
        asked.append(architecture)
        return speeds

    monkeypatch.setattr("tinygrow.training.batches.TrainingStream.__len__", lambda _: CIFAR.train)
    monkeypatch.setattr(estimates, "with_training_of", measured)
    advice(write())
    assert [a.stage_widths[0] for a in asked] == [8]
    assert asked[0].middle_widths == (8, 8, 16, 16, 32, 32, 64, 64)
