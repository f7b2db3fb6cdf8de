"""How fast this machine trains and extends a network: measured on copies, in short."""

import copy
import math
import time
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.growth.cost import CostModel, ExtensionCost, PlanCost, parameters_of
from tinygrow.growth.extend import Extension, extend
from tinygrow.growth.schedule import most_neurons
from tinygrow.growth.sites import Site
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_parameters
from tinygrow.settings.growth import GrowthSettings
from tinygrow.training.batches import TrainingStream
from tinygrow.training.estimate import forward_seconds, images_per_second
from tinygrow.training.loop import Trainer

SHARE = 0.02
"""Of the training that is estimated: what a measurement may take, within the bounds below."""

LOOKS = (0.1, 1.0)
"""Seconds for measuring the training of one width."""

BUDGETS = (2.0, 30.0)
"""Seconds for measuring extensions."""

PASSES = 24
"""Times that a mini-batch could be trained on while an extension is measured on it (5 to 8 on two
cores at base widths 16 and 64), with time for those that follow."""

SMALLEST_BATCH = 8


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds a multiply-add of the parts of an extension, at sites of one size.

    Attributes:
        size: of the site (`CostModel.size`).
        statistics: of the moments.
        solve: of the linear algebra.
        first_looks: of normalisation and sign (which works in float64).
        surgery: of running statistics and of the bottleneck measured again.
    """

    size: int
    statistics: float
    solve: float
    first_looks: float
    surgery: float


@dataclass(frozen=True, slots=True)
class Speeds:
    """What was measured.

    Attributes:
        training: multiply-adds of a forward pass and seconds of training an image, by width.
        reference: multiply-adds of a forward pass of the network that was extended.
        forward: seconds a multiply-add of a forward pass in full float32.
        extensions: by size of the site; empty where nothing is to be added.
        seconds: that measuring took.
    """

    training: tuple[tuple[float, float], ...]
    reference: float
    forward: float
    extensions: tuple[Rates, ...]
    seconds: float

    def training_seconds(self, forward: float) -> float:
        """Return the seconds of training an image, between the measured widths or beyond them.

        Args:
            forward: multiply-adds of a forward pass.
        """
        cost, seconds = self.training[0]
        if forward <= cost:
            return seconds * forward / cost
        for (low, fast), (high, slow) in pairwise(self.training):
            if forward <= high:
                return fast + (slow - fast) * (forward - low) / (high - low)
        cost, seconds = self.training[-1]
        return seconds * forward / cost

    def narrowed(self, forward: float) -> "Speeds":
        """Return the speeds for a network of another width than those that were extended.

        Narrow layers use less of a machine. How much less is known of training, and is taken to
        hold for all but linear algebra.

        Args:
            forward: multiply-adds of a forward pass of the network.
        """
        there = self.training_seconds(forward) / forward
        loss = there / (self.training_seconds(self.reference) / self.reference)
        rates = (
            replace(
                r,
                statistics=r.statistics * loss,
                first_looks=r.first_looks * loss,
                surgery=r.surgery * loss,
            )
            for r in self.extensions
        )
        return replace(self, forward=self.forward * loss, extensions=tuple(rates))

    def rates(self, size: int) -> Rates:
        """Return what was measured at the site nearest in size."""
        return min(self.extensions, key=lambda rates: abs(math.log(rates.size / size)))

    def extension_seconds(self, cost: ExtensionCost, size: int) -> tuple[float, ...]:
        """Return the seconds of moments, linear algebra, search and surgery at a site."""
        rates = self.rates(size)
        return (
            cost.statistics * rates.statistics,
            cost.solve * rates.solve,
            cost.first_looks * rates.first_looks + cost.search * self.forward,
            cost.surgery * rates.surgery + cost.surgery_solve * rates.solve,
        )


def measure(
    start: Architecture,
    final: Architecture,
    plan: PlanCost,
    stream: TrainingStream,
    settings: GrowthSettings,
    *,
    seed: int,
) -> Speeds:
    """Measure training at three widths, and one extension of each size of site on a mini-batch.

    The sites whose linear algebra is cheapest come first. Those that would not fit into the time
    for measuring are left to be scaled by their multiply-adds, but one is always measured.

    Args:
        start: seed architecture, at whose width the batch size is that of the settings.
        final: full width.
        plan: what is left.
        stream: its images are used, its random state is not.
        settings: of growth.
        seed: of weights.
    """
    model = CostModel(start, settings, len(stream))
    both = zip(plan.begin.middle_widths, plan.end.middle_widths, strict=True)
    middle = replace(start, middle_widths=tuple((a + b + 1) // 2 for a, b in both))
    cost = float(model.forward(middle.middle_widths))
    seed_parameters = parameters_of(start)

    def training(architecture: Architecture, seconds: float) -> tuple[float, float]:
        network = _placed(architecture, seed, stream)
        batch = float(settings.training.batch_size)
        if settings.batch_growth == "sqrt_parameters":
            batch *= (count_parameters(network) / seed_parameters) ** 0.5
        recipe = replace(settings.training, batch_size=round(batch))
        speed = images_per_second(network, stream, recipe, seconds)
        return float(model.forward(architecture.middle_widths)), 1.0 / speed

    speeds = Speeds((training(plan.begin, LOOKS[0]),), cost, 0.0, (), 0.0)
    started = time.perf_counter()  # what the first look loads, seconds of it, growth would load
    look = min(max(plan_seconds(plan, speeds) * SHARE, LOOKS[0]), LOOKS[1])
    widths = dict.fromkeys((plan.begin, middle, plan.end))
    speeds = replace(speeds, training=tuple(training(each, look) for each in widths))
    budget = min(max(plan_seconds(plan, speeds) * SHARE, BUDGETS[0]), BUDGETS[1])
    affordable = budget / (PASSES * speeds.training_seconds(cost))
    batch_size = max(SMALLEST_BATCH, round(affordable))
    batch_size = min(batch_size, settings.statistics.batch_size, len(stream))
    network = _placed(middle, seed, stream)
    speeds = replace(speeds, forward=forward_seconds(network, stream.images, batch_size) / cost)

    quick = _quick(settings, batch_size)
    counts = most_neurons(
        start.middle_widths,
        final.middle_widths,
        settings.extensions,
        settings.where.width_multiple,
    )
    small = CostModel(start, quick, len(stream))
    sites = {v.size: v.index for v in reversed(plan.visits) if v.extension is not None}
    trials = [
        _Trial(size, model.sites[i], counts[i], small.extension(i, middle.middle_widths, counts[i]))
        for size, i in sites.items()
    ]
    speeds = _with_extensions(speeds, network, trials, stream, quick, budget)
    return replace(speeds, seconds=time.perf_counter() - started)


def with_training_of(
    speeds: Speeds, architecture: Architecture, stream: TrainingStream, settings: GrowthSettings
) -> Speeds:
    """Return the speeds with that of training one more network.

    Args:
        speeds: so far.
        architecture: of the network.
        stream: its images are used, its random state is not.
        settings: of growth.
    """
    cost = float(CostModel(architecture, settings, 1).forward(architecture.middle_widths))
    device = stream.images.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        network = _placed(architecture, 0, stream)
        speed = images_per_second(network, stream, settings.training)
    return replace(speeds, training=tuple(sorted((*speeds.training, (cost, 1.0 / speed)))))


def plan_seconds(plan: PlanCost, speeds: Speeds) -> float:
    """Return the seconds of the plan's training."""
    return sum(v.training_images * speeds.training_seconds(v.forward) for v in plan.visits)


@dataclass(frozen=True, slots=True)
class _Trial:
    """An extension to measure: a site of that size, neurons to add, what that should cost."""

    size: int
    site: Site
    count: int
    cost: ExtensionCost


def _with_extensions(
    speeds: Speeds,
    network: nn.Module,
    trials: list[_Trial],
    stream: TrainingStream,
    settings: GrowthSettings,
    budget: float,
) -> Speeds:
    """Return the speeds with those of as many sites as `budget` seconds allow, two at least.

    What small sites cost beside their sums would make larger ones look too dear by far.
    """
    started = time.perf_counter()
    for trial in sorted(trials, key=lambda trial: (trial.cost.solve, trial.size)):
        left = budget - (time.perf_counter() - started)
        expected = sum(speeds.extension_seconds(trial.cost, trial.size)) if speeds.extensions else 0
        if len(speeds.extensions) > 1 and expected > left:
            break
        if not speeds.extensions:  # the first of a process makes much that later ones find
            _extended(network, trial, stream, _quick(settings, SMALLEST_BATCH))
        rates = _rates(_extended(network, trial, stream, settings), trial, speeds.forward)
        if speeds.extensions:  # larger decompositions use a machine better; the rest is chance
            rates = replace(rates, solve=min(rates.solve, speeds.extensions[-1].solve))
        speeds = replace(speeds, extensions=(*speeds.extensions, rates))
    return speeds


def _extended(
    network: nn.Module, trial: _Trial, stream: TrainingStream, settings: GrowthSettings
) -> Extension:
    """Extend a copy of `network`."""
    own = TrainingStream(stream.images, stream.augmentation, seed=0)
    trainer = Trainer(copy.deepcopy(network), own, settings.training, total_epochs=1.0)
    generator = torch.Generator().manual_seed(0)
    return extend(trainer.network, trial.site, trial.count, trainer, settings, generator=generator)


def _placed(architecture: Architecture, seed: int, stream: TrainingStream) -> nn.Module:
    network = build_network(architecture, seed)
    device = stream.images.device
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _quick(settings: GrowthSettings, batch: int) -> GrowthSettings:
    """Return the settings with samples of one mini-batch and the fewest amplitudes."""
    amplitude = settings.amplitude
    if amplitude.search != "fixed":
        top = math.ceil(math.log2(amplitude.largest)) - 1
        amplitude = replace(amplitude, search="grid", smallest_exponent=top)
    return replace(
        settings,
        where=replace(settings.where, width_multiple=1),  # what is extended here is between widths
        statistics=replace(
            settings.statistics, min_images=batch, max_images=batch, batch_size=batch
        ),
        amplitude=replace(amplitude, images=batch, when_rejected="preserve"),
    )


def _rates(done: Extension, trial: _Trial, forward: float) -> Rates:
    """Return the times of an extension by what it should have cost."""
    cost = trial.cost
    solve = _ratio(done.proposal.seconds_solve, cost.solve)
    first_looks = surgery = forward  # where no neurons were found
    if done.amplitude is not None:
        first_looks = _ratio(done.seconds_search - cost.search * forward, cost.first_looks)
        surgery = _ratio(done.seconds_surgery - cost.surgery_solve * solve, cost.surgery)
    return Rates(
        size=trial.size,
        statistics=_ratio(done.proposal.seconds_statistics, cost.statistics),
        solve=solve,
        first_looks=first_looks,
        surgery=surgery,
    )


def _ratio(seconds: float, cost: float) -> float:
    return max(0.0, seconds) / cost if cost else 0.0
