"""What long work takes on this machine, and what fits a CPU that a model is too large for.

The command line hands this to the stages, which do not import it: words are no reason to grow anew.
Settings of fine-tuning and of the data are read here only to word an advice. No output hangs on
them, so they are no parameters of the stage that gives it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.overrides import (
    SHORT,
    TOO_LONG,
    Overrides,
    advise,
    advise_finetuning,
    applied,
    fewer_epochs,
)
from pipeline.params import Params
from pipeline.sections.network import network_settings
from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.errors import TinygrowError
from tinygrow.growth.calibration import Speeds, with_training_of
from tinygrow.growth.cost import CostModel, plan_cost
from tinygrow.growth.estimate import GrowthEstimate, estimate_growth, predict
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.network import ResNetSettings
from tinygrow.settings.training import FinetuneSettings
from tinygrow.training.batches import TrainingStream
from tinygrow.training.estimate import duration, estimate_finetune

if TYPE_CHECKING:  # what is told of hangs on the stages, not they on it
    from pipeline.stages.finetune import Finetuning
    from pipeline.stages.grow import Growing

NARROWEST = 8
"""Base width below which advice does not go."""

LADDER: tuple[tuple[int | None, int | None], ...] = (
    (None, None),
    (30, None),
    (20, 20_000),
    (10, 10_000),
    (10, 5_000),
)
"""Epochs of fine-tuning and training images, at most, in the order in which they are given up."""

SAMPLE, SEARCH_IMAGES = 1000, 300
"""Images of the moments and of the line search, at most, from the second rung on."""

MUCH_SMALLER = 20
"""Times that another model's work on an image must be smaller for it to be named."""


@dataclass(frozen=True, slots=True)
class Images:
    """What the work hangs on besides the settings.

    Attributes:
        shape: channels, height, width.
        classes: number of them.
        train: images.
        validation: images.
    """

    shape: tuple[int, int, int]
    classes: int
    train: int
    validation: int


def grow_lines(work: "Growing") -> Iterator[str]:
    """Measure and yield what a growth, or what is left of it, takes here, and what would fit."""
    estimate = estimate_growth(
        work.start,
        work.final,
        work.stream,
        work.settings,
        validation_images=work.validation_images,
        done_visits=work.done_visits,
        done_images=work.done_images,
        seed=work.seed,
    )
    yield from estimate.lines()
    yield from advise_growth(
        work.values, work.model, estimate, work.stream, work.final, work.validation_images
    )


def finetune_lines(work: "Finetuning") -> Iterator[str]:
    """Measure and yield what a fine-tuning, or what is left of it, takes here, and what fits."""
    estimate = estimate_finetune(
        work.network,
        work.stream,
        work.settings,
        validation_images=work.validation_images,
        done_images=work.done_images,
    )
    yield from estimate.lines()
    yield from advise_finetuning(work.values, work.model, estimate)


def advise_growth(
    values: Params,
    model: str,
    estimate: GrowthEstimate,
    stream: TrainingStream,
    final: Architecture,
    validation_images: int,
) -> list[str]:
    """Return lines on what fits, where growth and fine-tuning take too long on a CPU.

    Args:
        values: of `params.yaml`.
        model: its name.
        estimate: of its growth, or of what is left of that.
        stream: its images are used to measure a narrow network, its random state is not.
        final: the model at full width.
        validation_images: images of each look.
    """
    if estimate.device != "cpu":
        return []
    images = Images(final.input_shape, final.classes, len(stream), validation_images)
    seconds = estimate.seconds + finetune_seconds(values, model, estimate.speeds, images)
    if seconds <= TOO_LONG:
        return []
    narrow = applied(values, _narrower(values, model, images)[-1])
    settings = narrow.section(model, "growth", GrowthSettings)
    speeds = with_training_of(
        estimate.speeds, _architectures(narrow, model, images)[1], stream, settings
    )
    epochs = values.section(model, "finetune", FinetuneSettings).epochs
    lines = [
        f"with {epochs} epochs of fine-tuning this model takes about {duration(seconds)}: it is"
        " sized for a GPU"
    ]
    fit = what_fits(values, model, speeds, images)
    if fit is not None:
        lines.append(advise(values, model, *fit))
    smaller = smaller_model(values, model, images)
    if smaller is not None:
        lines.append(f"or {smaller}, a smaller model: dvc repro report@{smaller}")
    return lines


def what_fits(
    values: Params, model: str, speeds: Speeds, images: Images
) -> tuple[Overrides, float] | None:
    """Return overrides with which the model takes a short time, and that time in seconds.

    Those of the fastest candidate where none is short; None where there is nothing to override.

    Args:
        values: of `params.yaml`.
        model: its name.
        speeds: of this machine.
        images: how many there are, and of which shape.
    """
    fastest: tuple[Overrides, float] | None = None
    for overrides, fewer in _candidates(values, model, images):
        candidate = applied(values, overrides)
        seconds = growth_seconds(candidate, model, speeds, fewer)
        seconds += finetune_seconds(candidate, model, speeds, fewer)
        if fastest is None or seconds < fastest[1]:
            fastest = overrides, seconds
        if seconds <= SHORT:
            break
    return fastest


def growth_seconds(values: Params, model: str, speeds: Speeds, images: Images) -> float:
    """Return the seconds of the whole growth."""
    start, final = _architectures(values, model, images)
    settings = values.section(model, "growth", GrowthSettings)
    plan = plan_cost(start, final, settings, images.train)
    narrowed = speeds.narrowed(sum(plan.forwards) / 2)
    return predict(plan, narrowed, validation_images=images.validation, device="cpu").seconds


def finetune_seconds(values: Params, model: str, speeds: Speeds, images: Images) -> float:
    """Return the seconds of fine-tuning what growth comes to, if it converges in time."""
    start, final = _architectures(values, model, images)
    growth = values.section(model, "growth", GrowthSettings)
    settings = values.section(model, "finetune", FinetuneSettings)
    end = start if growth.method == "none" else final
    forward = CostModel(end, growth, 1).forward(end.middle_widths)
    looks = 1 + math.ceil(settings.epochs / settings.evaluate_every)
    return (
        settings.epochs * images.train * speeds.training_seconds(forward)
        + looks * images.validation * forward * speeds.narrowed(forward).forward
    )


def smaller_model(values: Params, model: str, images: Images) -> str | None:
    """Return the model that takes least work an image, if that is much less than this one's."""
    work = {}
    for name in values.names("models"):
        try:
            final = _architectures(values, name, images)[1]
        except TinygrowError:  # these images are too small for it
            continue
        growth = values.section(name, "growth", GrowthSettings)
        trainings = growth.extensions
        if growth.train_after == "site":
            trainings *= len(final.middle_widths)
        epochs = values.section(name, "finetune", FinetuneSettings).epochs
        passes = trainings * growth.epochs_between + epochs
        work[name] = passes * CostModel(final, growth, 1).forward(final.middle_widths)
    least = min(work, key=work.__getitem__)
    return least if work[least] * MUCH_SMALLER < work[model] else None


def _candidates(values: Params, model: str, images: Images) -> Iterator[tuple[Overrides, Images]]:
    """Yield overrides from the least to the most that is given up, and the images they leave."""
    finetune = values.section(model, "finetune", FinetuneSettings)
    data = values.value(model, "data")
    total = images.train + images.validation
    for rung, (epochs, count) in enumerate(LADDER):
        lighter = _smaller_samples(values, model) if rung else {}
        lighter |= {} if epochs is None else fewer_epochs(model, finetune, epochs)
        fewer = images
        if count is not None and count < total and "max_train_images" in values.tree["data"][data]:
            lighter[f"data.{data}.max_train_images"] = count
            train = round(images.train * count / total)
            fewer = replace(images, train=train, validation=count - train)
        for narrower in _narrower(values, model, images):
            if narrower or lighter:
                yield narrower | lighter, fewer


def _smaller_samples(values: Params, model: str) -> Overrides:
    settings = values.section(model, "growth", GrowthSettings)
    place, overrides = f"models.{model}.growth", Overrides()
    most = settings.statistics.max_images
    if (most == 0 or most > SAMPLE) and settings.statistics.min_images <= SAMPLE:
        overrides[f"{place}.statistics.max_images"] = SAMPLE
    if settings.amplitude.images > SEARCH_IMAGES:
        overrides[f"{place}.amplitude.images"] = SEARCH_IMAGES
    return overrides


def _narrower(values: Params, model: str, images: Images) -> list[Overrides]:
    """Return overrides that leave the base width as it is, halve it, and so on."""
    settings = network_settings(values, model)
    found: list[Overrides] = [{}]
    if not isinstance(settings, ResNetSettings):
        return found
    growth = values.section(model, "growth", GrowthSettings)
    extensions, multiple = growth.extensions, growth.where.width_multiple
    base, place = settings.base_width, f"models.{model}"
    while base % 2 == 0 and base // 2 >= NARROWEST and base // 2 % multiple == 0:
        base //= 2
        overrides: Overrides = {f"{place}.architecture.base_width": base}
        start = next(
            s
            for s in (settings.start, *(2.0**-k for k in range(6, -1, -1)))
            if s >= settings.start and _is_whole(s * base)
        )
        if start != settings.start:
            overrides[f"{place}.architecture.start"] = start
        # The first stage's gap divides those of the wider ones.
        gap = base - round(start * base)
        if multiple == 1 and gap % extensions:
            most = max(n for n in range(1, extensions) if gap % n == 0)
            overrides[f"{place}.growth.extensions"] = most
        found.append(overrides)
    return found


def _is_whole(width: float) -> bool:
    return round(width) >= 1 and abs(width - round(width)) < 1e-6


def _architectures(values: Params, model: str, images: Images) -> tuple[Architecture, Architecture]:
    settings = network_settings(values, model)
    final = final_architecture(settings, images.shape, images.classes)
    return seed_architecture(settings, final), final
