"""How long growth will take on this machine: measured in short, before it begins."""

from dataclasses import dataclass

import torch

from tinygrow.architecture import Architecture
from tinygrow.growth.calibration import Speeds, measure, plan_seconds
from tinygrow.growth.cost import PlanCost, parameters_of, plan_cost
from tinygrow.networks.cost import TRAINING_PASSES
from tinygrow.settings.growth import GrowthSettings
from tinygrow.training.batches import TrainingStream
from tinygrow.training.estimate import duration, magnitude, rate


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthEstimate:
    """What growth, or what is left of it, will take on this machine.

    Times are of the machine as busy as it was when measured; the line search counts as if nothing
    stopped it early, and every extension as if it found all the neurons it looks for.

    Attributes:
        device: on which it was measured.
        parameters: at the beginning (of what is left) and at the end.
        extensions: that are left.
        images: image passes of training.
        images_per_second: of training, at the beginning and at the end.
        statistics_images: of the moments.
        seconds_training: of `images`.
        seconds_evaluation: of the log's looks at the validation images.
        seconds_statistics: of moments.
        seconds_solve: of linear algebra.
        seconds_search: of normalisation, sign and line search.
        seconds_surgery: of running statistics and of the bottleneck measured again.
        multiply_adds_training: three forward passes an image pass.
        multiply_adds_evaluation: of `seconds_evaluation`.
        multiply_adds_statistics: of moments and linear algebra.
        multiply_adds_search: of line search and surgery.
        speeds: what was measured.
        at_most: whether growth may take less: what it meets decides.
    """

    device: str
    parameters: tuple[int, int]
    extensions: int
    images: int
    images_per_second: tuple[float, float]
    statistics_images: int
    seconds_training: float
    seconds_evaluation: float
    seconds_statistics: float
    seconds_solve: float
    seconds_search: float
    seconds_surgery: float
    multiply_adds_training: float
    multiply_adds_evaluation: float
    multiply_adds_statistics: float
    multiply_adds_search: float
    speeds: Speeds
    at_most: bool = False

    @property
    def seconds_extensions(self) -> float:
        """All of the extensions, without the training between them."""
        return (
            self.seconds_statistics
            + self.seconds_solve
            + self.seconds_search
            + self.seconds_surgery
        )

    @property
    def seconds(self) -> float:
        """All that is left."""
        return self.seconds_training + self.seconds_evaluation + self.seconds_extensions

    @property
    def multiply_adds(self) -> float:
        """All that is left."""
        return (
            self.multiply_adds_training
            + self.multiply_adds_evaluation
            + self.multiply_adds_statistics
            + self.multiply_adds_search
        )

    def lines(self) -> list[str]:
        """Return the estimate as people read it."""
        low, high = (f"{count:,}" for count in self.parameters)
        speeds = " to ".join(dict.fromkeys(map(rate, self.images_per_second)))
        what, extensions = f"training {low} parameters", ""
        if self.extensions:
            what = f"growth from {low} to {high} parameters in {self.extensions} extensions"
            extensions = (
                f" extensions {duration(self.seconds_extensions)}, moments of"
                f" {self.statistics_images:,} images among it,"
            )
        return [
            f"{what} on {self.device}: {self.images:,} image passes of training at {speeds}"
            f" images/s ({duration(self.seconds_training)}),{extensions} evaluation"
            f" {duration(self.seconds_evaluation)}: {'at most ' * self.at_most}about"
            f" {duration(self.seconds)},"
            f" {magnitude(self.multiply_adds)} multiply-adds (measured in"
            f" {duration(self.speeds.seconds)})"
        ]


def estimate_growth(
    start: Architecture,
    final: Architecture,
    stream: TrainingStream,
    settings: GrowthSettings,
    *,
    validation_images: int,
    done_visits: int = 0,
    done_images: int | None = None,
    seed: int = 0,
) -> GrowthEstimate:
    """Measure this machine on copies, and add up what is left of the plan.

    Nothing that growth uses changes: neither the stream nor the global generators of random
    numbers.

    Args:
        start: seed architecture.
        final: full width.
        stream: training images, on the device of the growth.
        settings: of growth.
        validation_images: that the log looks at after each visit.
        done_visits: extensions that are done.
        done_images: image passes of training that are done; None: those up to the last extension
            that is done.
        seed: of the weights that are measured.
    """
    plan = plan_cost(
        start, final, settings, len(stream), done_visits=done_visits, done_images=done_images
    )
    device = stream.images.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        speeds = measure(start, final, plan, stream, settings, seed=seed)
    return predict(plan, speeds, validation_images=validation_images, device=str(device))


def predict(
    plan: PlanCost, speeds: Speeds, *, validation_images: int, device: str
) -> GrowthEstimate:
    """Add up the times of a plan, of the one that was measured or of another.

    Args:
        plan: what is left.
        speeds: of the machine.
        validation_images: of each look.
        device: that was measured.
    """
    extensions = [(v.extension, v.size) for v in plan.visits if v.extension is not None]
    parts = [speeds.extension_seconds(cost, size) for cost, size in extensions]
    statistics, solve, search, surgery = (
        sum(part) for part in zip((0.0,) * 4, *parts, strict=True)
    )
    images = sum(visit.training_images for visit in plan.visits)
    evaluation = float(validation_images * plan.evaluation)
    begin, end = (1.0 / speeds.training_seconds(forward) for forward in plan.forwards)
    return GrowthEstimate(
        device=device,
        parameters=(parameters_of(plan.begin), parameters_of(plan.end)),
        extensions=len(extensions),
        images=round(images),
        images_per_second=(begin, end),
        statistics_images=sum(cost.statistics_images for cost, _ in extensions),
        seconds_training=plan_seconds(plan, speeds),
        seconds_evaluation=evaluation * speeds.forward,
        seconds_statistics=statistics,
        seconds_solve=solve,
        seconds_search=search,
        seconds_surgery=surgery,
        multiply_adds_training=TRAINING_PASSES
        * sum(v.training_images * v.forward for v in plan.visits),
        multiply_adds_evaluation=evaluation,
        multiply_adds_statistics=sum(cost.statistics + cost.solve for cost, _ in extensions),
        multiply_adds_search=sum(
            cost.first_looks + cost.search + cost.surgery for cost, _ in extensions
        ),
        speeds=speeds,
        at_most=plan.at_most,
    )
