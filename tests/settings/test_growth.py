from typing import Any

import pytest

from tests.settings.refusal import check_form, check_words, refused
from tinygrow.settings.growth import (
    AmplitudeSettings,
    GrowthSettings,
    RefinementSettings,
    SolverSettings,
    StatisticsSettings,
)
from tinygrow.settings.methods import (
    FireflySettings,
    MethodsSettings,
    Net2WiderSettings,
    WhitenedSettings,
)

ALL = (
    StatisticsSettings,
    SolverSettings,
    AmplitudeSettings,
    RefinementSettings,
    GrowthSettings,
    Net2WiderSettings,
    FireflySettings,
    WhitenedSettings,
    MethodsSettings,
)
SO_THAT_ALL_WORDS_GO: dict[type, dict[str, Any]] = {RefinementSettings: {"fan_out": "refit"}}


@pytest.mark.parametrize("settings", ALL)
def test_form(settings: type) -> None:
    check_form(settings)
    check_words(settings, **SO_THAT_ALL_WORDS_GO.get(settings, {}))


def test_the_defaults_are_the_papers() -> None:
    """tiny.md 1.8 (sample sizes), 1.9 (line search), 1.12 (schedule)."""
    growth = GrowthSettings()
    assert (growth.method, growth.extensions, growth.epochs_between) == ("tiny", 16, 0.25)
    assert (growth.batch_growth, growth.optimizer_state) == ("sqrt_parameters", "recreate")
    statistics = growth.statistics
    assert (statistics.conv_factor, statistics.linear_factor) == (0.5, 2.0)
    assert (statistics.min_images, statistics.batch_size, statistics.same_sample) == (
        200,
        100,
        False,
    )
    assert growth.solver.projection
    amplitude = growth.amplitude
    assert amplitude.fixed_factor == 1e-3  # GradMax's
    assert (amplitude.normalization, amplitude.sign, amplitude.images) == (
        "functional",
        "group",
        1000,
    )
    assert (amplitude.smallest_exponent, amplitude.largest, amplitude.search) == (
        -27,
        1.0,
        "first_increase",
    )


@pytest.mark.parametrize(
    ("settings", "name", "value", "remedy"),
    [
        (StatisticsSettings, "conv_factor", 0.0, "greater than 0"),
        (StatisticsSettings, "linear_factor", -1.0, "greater than 0"),
        (StatisticsSettings, "min_images", 1, "at least 2"),
        (StatisticsSettings, "max_images", -1, "0 (no limit) or at least min_images (200)"),
        (StatisticsSettings, "max_images", 199, "0 (no limit) or at least min_images (200)"),
        (StatisticsSettings, "batch_size", 1, "from 2 to 65536"),
        (StatisticsSettings, "batch_size", 65_537, "from 2 to 65536"),
        (StatisticsSettings, "chunk_megabytes", 0, "at least 1"),
        (SolverSettings, "relative_cut", 0.0, "in (0, 1)"),
        (SolverSettings, "relative_cut", 1.0, "in (0, 1)"),
        (AmplitudeSettings, "sign_amplitude", 0.0, "greater than 0"),
        (AmplitudeSettings, "images", 1, "at least 2"),
        (AmplitudeSettings, "largest", 0.0, "greater than 0"),
        (AmplitudeSettings, "fixed_factor", 0.0, "greater than 0"),
        (AmplitudeSettings, "smallest_exponent", 0, "below largest (1.0)"),
        (AmplitudeSettings, "smallest_exponent", 5000, "below largest (1.0)"),
        (AmplitudeSettings, "smallest_exponent", -1001, "at least -1000"),
        (AmplitudeSettings, "tolerance", -1e-9, "at least 0"),
        (AmplitudeSettings, "min_gain", -1e-9, "at least 0"),
        (RefinementSettings, "candidates", 2, "only fan_out refit"),
        (RefinementSettings, "metric", "fisher", "set fan_out to refit"),
        (RefinementSettings, "ridge", 0.0, "greater than 0"),
        (RefinementSettings, "damping", 0.0, "greater than 0"),
        (RefinementSettings, "significance", 2.0, "only with fan_out refit"),
        (RefinementSettings, "passes", 101, "from 0 to 100"),
        (Net2WiderSettings, "noise", -0.1, "at least 0"),
        (FireflySettings, "steps", 0, "from 1 to 1000000"),
        (FireflySettings, "candidates", 0.9, "at least 1"),
        (FireflySettings, "learning_rate", 0.0, "greater than 0"),
        (WhitenedSettings, "ridge", 0.0, "greater than 0"),
        (GrowthSettings, "extensions", 0, "from 1 to 1000000"),
        (GrowthSettings, "extensions", 1_000_001, "from 1 to 1000000"),
        (GrowthSettings, "epochs_between", -0.1, "from 0 to 1000000"),
        (GrowthSettings, "epochs_between", 1e7, "from 0 to 1000000"),
    ],
)
def test_ranges(settings: type, name: str, value: Any, remedy: str) -> None:
    message = refused(settings, name, value)
    assert repr(value) in message and remedy in message


def test_limits_themselves_are_allowed() -> None:
    assert StatisticsSettings(max_images=200).max_images == 200
    assert AmplitudeSettings(smallest_exponent=-1).smallest_exponent == -1
    assert GrowthSettings(epochs_between=0.0).epochs_between == 0
    assert StatisticsSettings(batch_size=65_536).batch_size == 65_536
    assert GrowthSettings(extensions=1_000_000).extensions == 1_000_000
