"""The plan of growth: asked again and again for the next visit, or for the end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinygrow.growth.plan.facts import Evidence, Progress
from tinygrow.growth.plan.greedy import best_value
from tinygrow.growth.plan.significance import threshold
from tinygrow.growth.plan.sweep import first_of_sweep
from tinygrow.growth.plan.when import most_steps, most_trainings, on_plateau
from tinygrow.growth.schedule import Visit, visits, whole
from tinygrow.settings.growth import GrowthSettings


@dataclass(frozen=True, slots=True)
class TrainOn:
    """Training alone: it is not yet time for an extension."""


@dataclass(frozen=True, slots=True)
class End:
    """Growth is over.

    Attributes:
        reason: for people.
    """

    reason: str


class Plan:
    """Where, when and until when (see `WhereSettings` and its neighbours).

    Every site has the visits that Algorithm 1 gives it, with their targets; a plan chooses whose
    visit comes next, and whether any does. It has no state: all that it hangs on is handed to it.

    Attributes:
        visits: in the paper's order.
        length: how many rows of the log they come to, in words.
        trainings: of `epochs_between`, at most.

    Args:
        start: widths of all sites.
        final: likewise; never exceeded.
        settings: of growth; see `check_plan`, which refuses what does not come out whole.
    """

    def __init__(
        self, start: Sequence[int], final: Sequence[int], settings: GrowthSettings
    ) -> None:
        self.settings = settings
        self.visits = tuple(
            visits(start, final, settings.extensions, settings.where.width_multiple)
        )
        steps = most_steps(settings, len(self.visits))
        self.length = f"at most {steps}" if settings.open_ended else str(steps)
        trained = sum(self.trains_after(visit) for visit in self.visits)
        self.trainings = steps if settings.open_ended else trained
        self._final = tuple(final)
        self._of_site = [[v for v in self.visits if v.index == i] for i in range(len(start))]

    def trains_after(self, step: Visit | TrainOn) -> bool:
        """Say whether training belongs to a step."""
        return isinstance(step, TrainOn) or self.settings.train_after == "site" or step.ends_sweep

    def next(self, progress: Progress, evidence: Evidence) -> Visit | TrainOn | End:
        """Return the next visit, cut to the budgets, or training alone, or the end.

        Args:
            progress: of growth.
            evidence: of this moment; asked only where the plan hangs on it.
        """
        waiting = [v[n:] for v, n in zip(self._of_site, progress.visits, strict=True)]
        if not self.settings.open_ended:
            left = [v for site in waiting for v in site]
            return first_of_sweep(left) if left else self._over(progress)
        limit = self.settings.until.validation_accuracy
        if limit and progress.accuracy >= limit:
            return End(
                f"a validation accuracy of {progress.accuracy:.2f} % reaches"
                f" until.validation_accuracy ({limit:g} %)"
            )
        wanted = [
            next(v for v in site if v.target > width)
            for site, width in zip(waiting, progress.widths, strict=True)
            if any(v.target > width for v in site)
        ]
        if not wanted:
            return self._over(progress)
        if self.settings.until.budgeted:
            wanted = [
                v for v in (self._cut(v, progress, evidence) for v in wanted) if v is not None
            ]
            if not wanted:
                return End("no further neurons fit into the budget under until")
        return self._when(wanted, progress, evidence)

    def _when(
        self, wanted: list[Visit], progress: Progress, evidence: Evidence
    ) -> Visit | TrainOn | End:
        when, waited = self.settings.when, progress.trainings
        may_wait = waited < most_trainings(self.settings)
        flat = on_plateau(progress.losses, when.window, when.improvement)
        if when.trigger == "plateau" and may_wait and not flat:
            return TrainOn()
        if when.trigger == "significant" or self.settings.until.no_significant_gain:
            level = threshold(when.z, len(wanted))
            findings = evidence.study(wanted)
            wanted = [v for v in wanted if findings[v.index].significance() > level]
            if not wanted and when.trigger == "significant" and may_wait:
                return TrainOn()
            if not wanted:
                return End(
                    f"no site has a significant gain ({when.z:g} standard errors, among all sites"
                    f" {level:.2f})"
                )
        if self.settings.where.order == "greedy":
            return best_value(wanted, evidence, self.settings.where.candidates)
        return first_of_sweep(wanted)

    def _cut(self, visit: Visit, progress: Progress, evidence: Evidence) -> Visit | None:
        """Return the visit with the neurons that fit into the budgets; None where none do."""
        width = progress.widths[visit.index]
        wanted = visit.target - width
        count = min(wanted, evidence.fitting(visit))
        if count < wanted:
            count = whole(width, count, self.settings.where.width_multiple)
        return replace(visit, target=width + count) if count else None

    def _over(self, progress: Progress) -> End:
        if progress.widths == self._final:
            return End("the full widths are reached")
        return End(f"each site has had its {self.settings.extensions} visits")
