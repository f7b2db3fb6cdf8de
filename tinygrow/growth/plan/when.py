"""When: at every look, on a plateau of the training loss, or once a gain is significant."""

from collections.abc import Sequence

from tinygrow.settings.growth import GrowthSettings


def most_trainings(settings: GrowthSettings) -> int:
    """Return the trainings of `epochs_between` that may lie before an extension."""
    if settings.method == "none" or settings.when.trigger == "every":
        return 1
    return max(1, int(settings.when.max_epochs / settings.epochs_between + 1e-9))


def most_steps(settings: GrowthSettings, visits: int) -> int:
    """Return the most trainings that growth may come to, with those before the first extension."""
    if settings.method == "none" or settings.when.trigger == "every":
        return visits
    return (visits + 1) * most_trainings(settings)


def on_plateau(losses: Sequence[float], window: int, improvement: float) -> bool:
    """Say whether the loss fell by less than a share of itself.

    Args:
        losses: mean losses of the trainings since the last extension, oldest first.
        window: trainings that are compared with as many before; fewer than both: no plateau yet.
        improvement: share.
    """
    if len(losses) < 2 * window:
        return False
    before = sum(losses[-2 * window : -window]) / window
    after = sum(losses[-window:]) / window
    return after > (1.0 - improvement) * before
