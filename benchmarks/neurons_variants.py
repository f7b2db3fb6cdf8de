"""What `benchmarks.neurons` compares: names, what each means, and its settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings, StatisticsSettings
from tinygrow.settings.training import AugmentationSettings, TrainingSettings

PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to new neurons.

    Attributes:
        meaning: for the table.
        change: from the plain method's settings to its own.
    """

    meaning: str
    change: Callable[[GrowthSettings], GrowthSettings]


def plain_settings() -> GrowthSettings:
    """Return the paper's method, with samples of 1,000 images and a search on 300.

    The paper's formula asks for 200 at the first two depths of so narrow a network, which leaves
    every variant with noise, and for more than there are at the last two.
    """
    return GrowthSettings(
        extensions=3,
        statistics=StatisticsSettings(min_images=1000, max_images=1000),
        amplitude=AmplitudeSettings(images=300, smallest_exponent=-11),
        training=TrainingSettings(
            learning_rate=0.05,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            batch_size=64,
            augmentation=AugmentationSettings(crop_padding=4, flip="random"),
        ),
    )


def _refined(**values: object) -> Callable[[GrowthSettings], GrowthSettings]:
    return lambda s: replace(s, refinement=replace(s.refinement, **values))  # type: ignore[arg-type]


def _amplitude(**values: object) -> Callable[[GrowthSettings], GrowthSettings]:
    return lambda s: replace(s, amplitude=replace(s.amplitude, **values))  # type: ignore[arg-type]


def _solver(**values: object) -> Callable[[GrowthSettings], GrowthSettings]:
    return lambda s: replace(s, solver=replace(s.solver, **values))  # type: ignore[arg-type]


def _statistics(**values: object) -> Callable[[GrowthSettings], GrowthSettings]:
    return lambda s: replace(s, statistics=replace(s.statistics, **values))  # type: ignore[arg-type]


def _both(
    one: Callable[[GrowthSettings], GrowthSettings],
    two: Callable[[GrowthSettings], GrowthSettings],
) -> Callable[[GrowthSettings], GrowthSettings]:
    return lambda s: two(one(s))


VARIANTS: Mapping[str, Variant] = {
    PLAIN: Variant("the paper's method", lambda s: s),
    "random": Variant(
        "random directions, all else as plain", lambda s: replace(s, method="random")
    ),
    "sign": Variant("sign of each neuron", _amplitude(sign="neuron")),
    "unprojected": Variant(
        "the whole desired update, not its projection", _solver(projection=False)
    ),
    "transparent": Variant(
        "BatchNorm is the identity for new channels", _amplitude(transparent_norm=True)
    ),
    "scale": Variant("an amplitude for each neuron", _refined(fan_out="scale")),
    "refit": Variant("fan-out fitted to real activations", _refined(fan_out="refit")),
    "refit-fisher": Variant(
        "fan-out fitted in the Fisher metric", _refined(fan_out="refit", metric="fisher")
    ),
    "refit-fisher-3": Variant(
        "the best K of 3 K directions, fitted",
        _refined(fan_out="refit", metric="fisher", candidates=3),
    ),
    "unprojected-refit-fisher": Variant(
        "unprojected, fitted in the Fisher metric",
        _both(_solver(projection=False), _refined(fan_out="refit", metric="fisher")),
    ),
    "pass": Variant(
        "unprojected, fitted, one further pass",
        _both(_solver(projection=False), _refined(fan_out="refit", metric="fisher", passes=1)),
    ),
    "passes-3": Variant(
        "unprojected, fitted, up to three passes",
        _both(_solver(projection=False), _refined(fan_out="refit", metric="fisher", passes=3)),
    ),
    "shrunk": Variant("S shrunk as cross-validation says", _solver(shrinkage="cross_validated")),
    "pass-shrunk": Variant(
        "`pass`, S shrunk as cross-validation says",
        _both(
            _solver(projection=False, shrinkage="cross_validated"),
            _refined(fan_out="refit", metric="fisher", passes=1),
        ),
    ),
    "pass-significant": Variant(
        "`pass` of the neurons whose gain is 2 standard errors from chance",
        _both(
            _solver(projection=False),
            _refined(fan_out="refit", metric="fisher", passes=1, significance=2.0),
        ),
    ),
    "measured": Variant(
        "as many images as make two halves agree", _statistics(size="measured", max_images=0)
    ),
    "pass-measured": Variant(
        "`pass`, as many images as make two halves agree",
        _both(
            _statistics(size="measured", max_images=0),
            _both(_solver(projection=False), _refined(fan_out="refit", metric="fisher", passes=1)),
        ),
    ),
    "random-refit-fisher": Variant(
        "random directions refitted: the control",
        _both(lambda s: replace(s, method="random"), _refined(fan_out="refit", metric="fisher")),
    ),
}
