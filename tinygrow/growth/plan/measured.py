"""Evidence from the network as it stands.

One random sample of the training images is cut into three parts: the moments come from the first,
normalisation, sign and line search from the second, gains and their significance from the third,
which neither has seen. Validation images are not touched. The extension that is then made draws
samples of its own, so the neurons that won the comparison are not those that are added.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import torch
from torch import nn

from tinygrow.distributed import of_first, once
from tinygrow.growth.amplitude import Trial, choose_amplitude, normalize
from tinygrow.growth.bottleneck import Neurons, best_update, optimal_neurons
from tinygrow.growth.plan import until
from tinygrow.growth.plan.price import (
    Price,
    milliseconds,
    price_of,
    price_of_neuron,
    with_blank_units,
)
from tinygrow.growth.plan.significance import image_gains, standard_errors
from tinygrow.growth.sample_size import neuron_sample_size
from tinygrow.growth.schedule import Visit
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import (
    batch_statistics,
    desired_updates,
    neuron_moments_of,
    update_moments_of,
)
from tinygrow.growth.surgery import NewUnits, as_units
from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings
from tinygrow.training.batches import Batch, TrainingStream

SMALLEST_LATENCY = 0.01
"""Share of the network's own time below which the time of new neurons is noise and counts as so
much."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """A sample in three parts without common images.

    Attributes:
        fit: for the moments; each batch is made when asked for.
        search: for normalisation, sign and amplitude.
        held_out: for gains.
    """

    fit: Sequence[Batch]
    search: list[Batch]
    held_out: list[Batch]


class Measured:
    """Evidence about the sites of one network at one moment (see `Evidence`).

    Args:
        network: on the stream's device; not changed.
        sites: in order of depth.
        widths: of them.
        stream: gives the images; its place moves on by what `study` draws.
        input_shape: channels, height, width.
        settings: of growth.
    """

    def __init__(
        self,
        network: nn.Module,
        sites: Sequence[Site],
        widths: Sequence[int],
        stream: TrainingStream,
        input_shape: tuple[int, int, int],
        settings: GrowthSettings,
    ) -> None:
        self.images = 0
        self._network = network
        self._sites = sites
        self._widths = widths
        self._stream = stream
        self._input_shape = input_shape
        self._settings = settings
        self._findings: dict[int, _Finding] = {}

    def fitting(self, visit: Visit) -> int:
        """Return how many of a visit's neurons the budgets leave room for.

        Parameters and multiply-adds are counted; latency is measured, with fewer and fewer neurons
        where it is too long.
        """
        site, count = self._wanted(visit)
        limits = self._settings.until
        if not limits.budgeted:
            return count
        now, each = self._now(), self._each(site)
        budgets = (
            until.Budget(limits.parameters, now.parameters, each.parameters),
            until.Budget(limits.multiply_adds, now.multiply_adds, each.multiply_adds),
        )
        count = until.fitting(count, budgets)
        if count and limits.latency_ms:

            def fits(neurons: int) -> bool:
                wide = with_blank_units(self._network, site, neurons)
                return self._milliseconds([wide])[0] <= limits.latency_ms

            count = until.most_that(fits, count)
        return count

    def cost(self, visit: Visit) -> float:
        """Return what a visit's neurons cost, in the unit of `where.score`."""
        site, count = self._wanted(visit)
        score = self._settings.where.score
        if score == "per_latency":
            wide = with_blank_units(self._network, site, count)
            before, after = self._milliseconds([self._network, wide])
            return max(after - before, SMALLEST_LATENCY * before)
        each = self._each(site)
        return float(count * (each.parameters if score == "per_parameter" else each.multiply_adds))

    def study(self, visits: Sequence[Visit]) -> Mapping[int, "_Finding"]:
        """Fit neurons at all sites on one sample; the same visits are not fitted twice."""
        wanted = {visit.index: visit for visit in visits}
        if not wanted.keys() <= self._findings.keys():
            sites = [self._sites[index] for index in wanted]
            counts = [self._wanted(visit)[1] for visit in wanted.values()]
            pieces = self._draw(sites)
            neurons = leading_neurons(self._network, sites, counts, pieces.fit, self._settings)
            self._findings = {
                index: _Finding(self._network, site, found, pieces, self._settings)
                for index, site, found in zip(wanted, sites, neurons, strict=True)
            }
            self.images += 2 * sum(len(labels) for _, labels in pieces.fit)
        return self._findings

    def _wanted(self, visit: Visit) -> tuple[Site, int]:
        return self._sites[visit.index], visit.target - self._widths[visit.index]

    def _now(self) -> Price:
        return price_of(self._network, self._input_shape)

    def _each(self, site: Site) -> Price:
        return price_of_neuron(self._network, site, self._input_shape)

    def _milliseconds(self, networks: Sequence[nn.Module]) -> list[float]:
        batch = self._settings.where.latency_batch
        return of_first(milliseconds(networks, self._input_shape, batch))  # clocks differ

    def _draw(self, sites: Sequence[Site]) -> Pieces:
        """Draw as many images as the most demanding site asks for its moments, and the rest."""
        settings, available = self._settings, len(self._stream)
        with batch_statistics(self._network):
            seen = desired_updates(
                self._network, sites, self._stream.sample(2, settings.statistics.batch_size)[0]
            )
        fit = 0
        for site, one in zip(sites, seen, strict=True):
            first, second = site.layers(self._network)
            size = tuple(one.h.shape[2:])
            images = neuron_sample_size(first, second, size, available, settings.statistics)
            fit = max(fit, images)
        return cut(
            self._stream,
            fit,
            min(settings.amplitude.images, available // 3),
            min(settings.where.images, available // 3),
            settings.statistics.batch_size,
        )


def cut(stream: TrainingStream, fit: int, search: int, held_out: int, batch_size: int) -> Pieces:
    """Draw a sample and cut it into three parts of whole mini-batches, one at least of each.

    Args:
        stream: of at least six images.
        fit: images, fewer where the training set has not so many besides the others.
        search: images.
        held_out: images.
        batch_size: at most so many images a batch; fewer where there would not be three.
    """
    total = min(len(stream), fit + search + held_out)
    sample = stream.sample(total, max(2, min(batch_size, total // 3)))
    batches = len(sample)
    last = min(max(1, round(batches * held_out / total)), batches - 2)
    middle = min(max(1, round(batches * search / total)), batches - 1 - last)
    begin = batches - last - middle
    return Pieces(_First(sample, begin), sample[begin : begin + middle], sample[begin + middle :])


class _First(Sequence[Batch]):
    """The first batches of a sample, which may be too many to be held at once."""

    def __init__(self, sample: Sequence[Batch], count: int) -> None:
        self._sample = sample
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | Sequence[Batch]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._sample[index]


def leading_neurons(
    network: nn.Module,
    sites: Sequence[Site],
    counts: Sequence[int],
    batches: Sequence[Batch],
    settings: GrowthSettings,
) -> list[Neurons]:
    """Return TINY's neurons at all sites, from two passes over one sample (tiny.md 1.3 to 1.6).

    Args:
        network: as it stands.
        sites: where; the moments of all are held at once.
        counts: neurons wanted at each.
        batches: images of both estimates.
        settings: of growth.
    """
    statistics, cut_off = settings.statistics, settings.solver.relative_cut
    smoothing = settings.training.label_smoothing
    updates = update_moments_of(network, sites, batches, statistics, smoothing)
    deltas = [once(best_update, m.S1, m.M, cut_off) for m in updates]
    pairs = neuron_moments_of(
        network,
        sites,
        batches,
        deltas if settings.solver.projection else [None] * len(deltas),
        statistics,
        smoothing,
    )
    eps = torch.finfo(getattr(torch, statistics.dtype)).eps
    return [
        once(
            optimal_neurons,
            pair.S,
            pair.N,
            count,
            cut_off,
            eps * (moments.power / cut_off) ** 0.5,
        )
        for pair, moments, count in zip(pairs, updates, counts, strict=True)
    ]


class _Finding:
    """What the leading neurons promise at one site (see `Finding`)."""

    def __init__(
        self,
        network: nn.Module,
        site: Site,
        neurons: Neurons,
        pieces: Pieces,
        settings: GrowthSettings,
    ) -> None:
        self.predicted = float(neurons.singular_values.double().square().sum())
        self._network = network
        self._site = site
        self._neurons = neurons
        self._pieces = pieces
        self._settings = settings
        self._smoothing = settings.training.label_smoothing

    def significance(self) -> float:
        """Return the gain to first order on held-out images, in standard errors.

        The units are scaled to the layer's own; of the two signs the better one on the images of
        the search is tried.
        """
        if not len(self._neurons.alpha):
            return 0.0
        units = normalize(self._network, self._site, self._units(), self._pieces.search[0])
        signed = (units, units.scaled(-1.0, -1.0))
        best = max(signed, key=lambda u: float(self._gains(u, self._pieces.search).mean()))
        return of_first(standard_errors(self._gains(best, self._pieces.held_out)))

    def gain(self) -> float:
        """Return the loss that the neurons take off held-out images at the searched amplitude."""
        if not len(self._neurons.alpha):
            return 0.0
        amplitude = of_first(
            choose_amplitude(
                self._network,
                self._site,
                self._units(),
                self._pieces.search,
                searching(self._settings.amplitude),
                self._smoothing,
            )
        )
        if amplitude.units is None or amplitude.rejected:
            return 0.0
        trial = Trial(self._network, self._site, amplitude.units)
        after = trial.loss(self._pieces.held_out, self._smoothing)
        trial.set(0.0, 0.0)
        return _finite(trial.loss(self._pieces.held_out, self._smoothing) - after)

    def _units(self) -> NewUnits:
        return as_units(self._neurons, *self._site.layers(self._network))

    def _gains(self, units: NewUnits, batches: Sequence[Batch]) -> torch.Tensor:
        return image_gains(self._network, self._site, units, batches, self._smoothing)


def searching(settings: AmplitudeSettings) -> AmplitudeSettings:
    """Return settings that search an amplitude, also where a method has a fixed one."""
    if settings.search != "fixed":
        return settings
    return replace(settings, normalization="functional", sign="group", search="first_increase")


def _finite(gain: float) -> float:
    return gain if math.isfinite(gain) else -math.inf
