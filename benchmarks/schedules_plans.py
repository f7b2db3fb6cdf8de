"""What `benchmarks.schedules` compares: the recipe, and ways to spend image passes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tinygrow.settings.growth import (
    AmplitudeSettings,
    GrowthSettings,
    RefinementSettings,
    SolverSettings,
    StatisticsSettings,
)
from tinygrow.settings.network import ResNetSettings
from tinygrow.settings.plan import UntilSettings, WhereSettings
from tinygrow.settings.training import TrainingSettings

EPOCHS = 30
"""Image passes of every plan that is not shorter by its name."""
SITES = 8

Overrides = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all plans share.

    Attributes:
        train_images: of the training images.
        validation_images: others of them, held out.
        test_images: looked at once, when a run is finished.
        network: shape; each plan has a start of its own.
        recipe: of training, chosen by the plans of the group `recipe`.
        growth: how neurons are made: the defaults of the modern models.
    """

    train_images: int = 10_000
    validation_images: int = 2_000
    test_images: int = 10_000
    network: ResNetSettings = field(default_factory=lambda: ResNetSettings(base_width=16))
    recipe: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            learning_rate=0.1,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            batch_size=128,
            schedule="cosine",
            warmup_epochs=1.0,
            label_smoothing=0.1,
            precision="bfloat16",
        )
    )
    growth: GrowthSettings = field(
        default_factory=lambda: GrowthSettings(
            batch_growth="constant",
            optimizer_state="pad",
            statistics=StatisticsSettings(min_images=1000, max_images=1000),
            solver=SolverSettings(projection=False),
            refinement=RefinementSettings(fan_out="refit", metric="fisher", passes=1),
            amplitude=AmplitudeSettings(images=300, smallest_exponent=-12, search="bracket"),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One way to a trained network.

    Attributes:
        meaning: for the table.
        group: `recipe`, `shorter` (full width, fewer epochs), `uniform` (smaller widths), `grown`
            (to the full width), `budget` (growth that stops before).
        start: share of the middle widths at the start.
        epochs: after growth, or of all training.
        sweeps: extensions of every site; 0: no growth.
        between: epochs after every extension.
        growth: further settings of growth.
        recipe: settings of the recipe that differ.
    """

    meaning: str
    group: str
    start: float = 1.0
    epochs: int = EPOCHS
    sweeps: int = 0
    between: float = 0.0
    growth: Overrides = field(default_factory=dict)
    recipe: Overrides = field(default_factory=dict)

    def growth_settings(self, setup: Setup) -> GrowthSettings:
        """Return the settings of growth: the recipe at a constant learning rate."""
        recipe = replace(setup.recipe, **self.recipe)
        training = replace(recipe, schedule="constant", warmup_epochs=0.0)
        return replace(
            setup.growth,
            extensions=self.sweeps,
            epochs_between=self.between,
            training=training,
            **self.growth,
        )


def _grown(start: float, sweeps: int, between: float, method: str = "tiny") -> Plan:
    """Return a plan of `EPOCHS` image passes altogether, growth first."""
    growing = sweeps * SITES * between
    name = {"tiny": "TINY's neurons", "random": "random ones", "net2wider": "Net2Wider's"}[method]
    return Plan(
        meaning=f"from {start:g}, {name}, {growing:g} epochs of growth, {EPOCHS - growing:g} after",
        group="grown",
        start=start,
        sweeps=sweeps,
        between=between,
        epochs=round(EPOCHS - growing),
        growth={"method": method},
    )


def _stopped(meaning: str, parameters: int, **where: Any) -> Plan:
    """Return a plan that grows from a quarter until so many parameters."""
    return Plan(
        meaning=meaning,
        group="budget",
        start=0.25,
        sweeps=3,
        between=0.5,
        epochs=EPOCHS - 12,
        growth={
            "until": UntilSettings(parameters=parameters),
            "where": WhereSettings(order="greedy", **where),
        },
    )


def _recipe(meaning: str, **changes: Any) -> Plan:
    return Plan(meaning=meaning, group="recipe", epochs=15, recipe=changes)


HALF = 407_018
"""Parameters of the network whose middle widths are half, with ten classes."""

PLANS: Mapping[str, Plan] = {
    "recipe": _recipe("learning rate 0.1, smoothing 0.1, cosine"),
    "recipe-lr005": _recipe("learning rate 0.05", learning_rate=0.05),
    "recipe-lr02": _recipe("learning rate 0.2", learning_rate=0.2),
    "recipe-lr04": _recipe("learning rate 0.4", learning_rate=0.4),
    "recipe-hard": _recipe("no label smoothing", label_smoothing=0.0),
    "recipe-triangular": _recipe("triangular", schedule="triangular", warmup_epochs=3.0),
    "recipe-batch64": _recipe("batches of 64", batch_size=64),
    "recipe-decay": _recipe("weight decay 1e-3", weight_decay=1e-3),
    "full-30": Plan(meaning="full width, 30 epochs", group="shorter"),
    "full-24": Plan(meaning="full width, 24 epochs", group="shorter", epochs=24),
    "full-18": Plan(meaning="full width, 18 epochs", group="shorter", epochs=18),
    "full-12": Plan(meaning="full width, 12 epochs", group="shorter", epochs=12),
    "half": Plan(meaning="half of the inner widths", group="uniform", start=0.5),
    "quarter": Plan(meaning="a quarter", group="uniform", start=0.25),
    "sixteenth": Plan(meaning="a sixteenth", group="uniform", start=0.0625),
    "grown-4-6": _grown(0.25, 3, 0.25),
    "grown-4-12": _grown(0.25, 3, 0.5),
    "grown-4-18": _grown(0.25, 3, 0.75),
    "grown-16-12": _grown(0.0625, 3, 0.5),
    "grown-16-20": _grown(0.0625, 5, 0.5),
    "random-4-12": _grown(0.25, 3, 0.5, "random"),
    "net2wider-4-12": _grown(0.25, 3, 0.5, "net2wider"),
    "budget-parameters": _stopped("greedy by gain a parameter, half of them", HALF),
    "budget-macs": _stopped(
        "greedy by gain a multiply-add, half of the parameters", HALF, score="per_multiply_add"
    ),
}
