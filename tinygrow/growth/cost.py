"""What growth costs in multiply-adds: counted from its plan, without running any of it.

Conventions: a forward pass costs the multiply-adds of its convolutions and linear layers; the
moments of an image a forward pass, a backward pass of activations alone down to the site, and the
products of patches, as im2col takes them (between plain convolutions correlations take a part of
it). Decompositions count half of the floating-point operations that textbooks give (Golub, Van
Loan, Matrix Computations) for the whole of them: 9 n^3 for symmetric eigenvectors, 4 m n^2 + 22 n^3
for a thin SVD; large problems take less, as only the leading triplets are found.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.growth.line_search import bracket_losses, largest_exponent
from tinygrow.growth.neurons.method import SETTLED
from tinygrow.growth.passes import STEPS
from tinygrow.growth.plan.cost import next_targets, with_choice
from tinygrow.growth.plan.measured import searching
from tinygrow.growth.plan.when import most_trainings
from tinygrow.growth.sample_size import neuron_sample_size, update_sample_size
from tinygrow.growth.schedule import visits
from tinygrow.growth.sites import Site, sites_of
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import TRAINING_PASSES, LayerShape, count_parameters, layer_shapes
from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings, RefinementSettings

USUAL_END = -6
"""Power of two at which a search that stops at the first increase ends on average, once activations
are normalised (docs/results: the demo 2^-6.4, CIFAR-10 at base width 16 2^-6.7)."""

MOMENTS: dict[str, tuple[str, ...]] = {
    "tiny": ("update", "neurons", "gram"),
    "whitened": ("outputs", "update", "neurons", "gram"),
    "gradmax": ("neurons",),
    "firefly": ("steps",),
    "net2wider": (),
    "random": (),
    "random_zero": (),
    "random_pairs": (),
    "random_variance": ("variances",),
    "none": (),
}
"""What each method measures: S1 and M (`update`), N (`neurons`), S (`gram`), the moment of the
desired update (`outputs`), variances of the second layer's output (`variances`), the loss while new
neurons are trained (`steps`)."""


@dataclass(frozen=True, slots=True)
class ExtensionCost:
    """One extension. All but images and passes in multiply-adds.

    Attributes:
        statistics_images: of the moments.
        statistics: of the moments, with those of a refitted fan-out.
        solve: of eigenvectors and singular vectors.
        first_looks: of normalisation and sign, at the first mini-batch of the search.
        search: of the line search, and of further passes.
        search_loss: of one loss among those of the line search.
        surgery: of running statistics and of the moments for the bottleneck measured again.
        surgery_solve: of its linear algebra.
    """

    statistics_images: int
    statistics: float
    solve: float
    first_looks: float
    search: float
    search_loss: float
    surgery: float
    surgery_solve: float


@dataclass(frozen=True, slots=True)
class VisitCost:
    """What is left of one visit of the plan.

    Attributes:
        index: of the site.
        size: of the site, see `CostModel.size`.
        forward: multiply-adds of a forward pass of one image, at the widths after the visit.
        training_images: image passes of the training behind it.
        extension: None where there is nothing to add (any more).
    """

    index: int
    size: int
    forward: int
    training_images: float
    extension: ExtensionCost | None


@dataclass(frozen=True, slots=True)
class PlanCost:
    """What is left of a plan of growth.

    Attributes:
        begin: widths at which it goes on.
        end: widths that it comes to; `begin` where nothing grows.
        forwards: multiply-adds of a forward pass at both.
        visits: what is left of each.
        evaluation: multiply-adds of the log's looks, for each validation image.
        at_most: whether growth may come to less: what it meets decides.
    """

    begin: Architecture
    end: Architecture
    forwards: tuple[int, int]
    visits: tuple[VisitCost, ...]
    evaluation: int
    at_most: bool = False


class CostModel:
    """Counts multiply-adds of a network and of its extensions at any growable widths.

    Args:
        architecture: any of the growth.
        settings: of growth.
        available: training images there are.
    """

    def __init__(
        self, architecture: Architecture, settings: GrowthSettings, available: int
    ) -> None:
        narrow = replace(architecture, middle_widths=(1,) * len(architecture.middle_widths))
        self._architecture = architecture
        self.settings = settings
        self.available = available
        self.sites = sites_of(architecture)
        self._shapes = dict(layer_shapes(_built(narrow), architecture.input_shape))

    def forward(self, widths: Sequence[int]) -> int:
        """Return the multiply-adds of a forward pass of one image."""
        return sum(shape.multiply_adds for shape in self._at(widths).values())

    def size(self, index: int) -> int:
        """Return a number by which sites of other shapes differ: entries of N in `architecture`."""
        shapes = self._at(self._architecture.middle_widths)
        site = self.sites[index]
        first, second = self._pair(site, shapes)
        return first.patch * self._columns(site, second)

    def extension(self, index: int, widths: Sequence[int], count: int) -> ExtensionCost:
        """Return what it costs to add `count` neurons at a site.

        Args:
            index: of the site.
            widths: before the extension.
            count: neurons.
        """
        site, settings = self.sites[index], self.settings
        before = self._at(widths)
        first, second = self._pair(site, before)
        wider = list(widths)
        wider[index] += count
        after = self._at(wider)
        forward = sum(shape.multiply_adds for shape in after.values())
        update_images, neuron_images = self._moment_images(first, second)
        measured = MOMENTS[settings.method]
        images = update_images + neuron_images + update_images * ("outputs" in measured)
        statistics = images * self._gradient(site, before)
        statistics += update_images * _update_products(second)
        statistics += neuron_images * self._neuron_products(site, first, second)
        if "variances" in measured:
            images = min(settings.statistics.min_images, self.available)
            statistics += images * forward
        if "steps" in measured:
            images = self._step_images(first, second)
            statistics += images * self._gradient(site, after)
        search_images = min(settings.amplitude.images, self.available)
        batches = math.ceil(search_images / settings.statistics.batch_size)
        looks, search, loss = 0, 2 * forward, forward
        if settings.method not in SETTLED:
            looks += 2 * (settings.amplitude.normalization == "functional")
            looks += 2 * (settings.amplitude.sign == "group")
            search, loss = self._search(site, after)
            sample = update_sample_size(
                _layer(second), second.input_size, self.available, settings.statistics
            )
            statistics += sample * self._refit(index, widths, count)
            tries = TRAINING_PASSES * sample / search_images + len(STEPS) + 1
            search += settings.refinement.passes * round(tries * forward)
        networks = 2 if settings.training.ema else 1
        surgery, surgery_solve = float(networks * search_images * forward), 0.0
        if "update" in measured:
            wide = self._pair(site, after)[1]
            surgery += update_images * (self._gradient(site, after) + _update_products(wide))
            surgery_solve = _eigenvectors(wide.patch)
        return ExtensionCost(
            statistics_images=images,
            statistics=float(statistics),
            solve=self._solve(site, first, second, neuron_images),
            first_looks=float(looks * math.ceil(search_images / batches) * forward),
            search=float(search_images * search),
            search_loss=float(search_images * loss),
            surgery=surgery,
            surgery_solve=surgery_solve,
        )

    def _at(self, widths: Sequence[int]) -> dict[str, LayerShape]:
        shapes = dict(self._shapes)
        for site, width in zip(self.sites, widths, strict=True):
            shapes[site.first] = replace(shapes[site.first], outputs=width)
            # A flattened map has several inputs a unit.
            inputs = width * self._shapes[site.second].inputs
            shapes[site.second] = replace(shapes[site.second], inputs=inputs)
        return shapes

    def _pair(self, site: Site, shapes: dict[str, LayerShape]) -> tuple[LayerShape, LayerShape]:
        return shapes[site.first], shapes[site.second]

    def _gradient(self, site: Site, shapes: dict[str, LayerShape]) -> int:
        """Return the multiply-adds of a forward pass and of the way back to the site."""
        names = list(shapes)
        behind = names[names.index(site.second) + 1 :]
        return sum(shape.multiply_adds for shape in shapes.values()) + sum(
            shapes[name].multiply_adds for name in behind
        )

    def _search(self, site: Site, shapes: dict[str, LayerShape]) -> tuple[int, int]:
        """Return the multiply-adds of a line search, and of one loss: once up to the site."""
        names = list(shapes)
        before = sum(shapes[name].multiply_adds for name in names[: names.index(site.first)])
        behind = sum(shapes[name].multiply_adds for name in names[names.index(site.first) :])
        return before + amplitudes(self.settings.amplitude) * behind, behind

    def _moment_images(self, first: LayerShape, second: LayerShape) -> tuple[int, int]:
        measured, statistics = MOMENTS[self.settings.method], self.settings.statistics
        update = neurons = 0
        if "update" in measured:
            update = update_sample_size(
                _layer(second), second.input_size, self.available, statistics
            )
        if "neurons" in measured:
            neurons = neuron_sample_size(
                _layer(first), _layer(second), second.input_size, self.available, statistics
            )
            if statistics.same_sample and update:
                neurons = update
        return update, neurons

    def _refit(self, index: int, widths: Sequence[int], count: int) -> int:
        """Return the multiply-adds of the moments of new channels, of one image."""
        refinement, site, wider = self.settings.refinement, self.sites[index], list(widths)
        if refinement.fan_out == "closed_form":
            return 0
        count *= 2 * refinement.candidates if refinement.fan_out == "refit" else 1  # both signs
        wider[index] += count
        shapes = self._at(wider)
        new = replace(shapes[site.second], inputs=count * self._shapes[site.second].inputs)
        return self._gradient(site, shapes) + _update_products(new)

    def _step_images(self, first: LayerShape, second: LayerShape) -> int:
        """Return the images on which candidates are trained and compared."""
        steps, statistics = self.settings.methods.firefly.steps, self.settings.statistics
        sample = neuron_sample_size(
            _layer(first), _layer(second), second.input_size, self.available, statistics
        )
        sample = min(sample, steps * statistics.batch_size)
        batches = math.ceil(sample / statistics.batch_size)
        sizes = [sample // batches + (i < sample % batches) for i in range(batches)]
        return sum(sizes[i % batches] for i in range(steps)) + sample

    def _columns(self, site: Site, second: LayerShape) -> int:
        """Return the columns of N: outputs times taps, or positions of a flattened map."""
        return second.outputs * second.taps * self._shapes[site.second].inputs

    def _neuron_products(self, site: Site, first: LayerShape, second: LayerShape) -> int:
        columns = self._columns(site, second)
        positions = math.prod(first.output_size)
        # A linear layer reads each position of a flattened map with columns of its own.
        products = (positions if second.input_size else 1) * first.patch * columns
        if "gram" in MOMENTS[self.settings.method]:
            products += positions * first.patch**2
            products += second.multiply_adds * self.settings.solver.projection
        return products

    def _solve(self, site: Site, first: LayerShape, second: LayerShape, images: int) -> float:
        measured = MOMENTS[self.settings.method]
        if "neurons" not in measured:
            return 0.0
        rows, columns = first.patch, self._columns(site, second)
        cost = 0.0
        if "gram" in measured:
            cost += _eigenvectors(first.patch)
            # S has no more directions than there were patches.
            rows = min(rows, images * math.prod(first.output_size))
        if "update" in measured:
            cost += _eigenvectors(second.patch)
        small, large = sorted((rows, columns))
        return cost + 0.5 * (4.0 * large * small**2 + 22.0 * small**3)


def amplitudes(settings: AmplitudeSettings) -> int:
    """Return how many losses a search looks at: all there are, or the usual number."""
    if settings.search == "fixed":
        return 2
    if settings.search == "bracket":
        return bracket_losses(settings)
    top = largest_exponent(settings)
    if settings.search == "first_increase" and settings.normalization == "functional":
        top = min(top, max(USUAL_END, settings.smallest_exponent + 1))
    return top - settings.smallest_exponent + 2


def plan_cost(
    start: Architecture,
    final: Architecture,
    settings: GrowthSettings,
    images: int,
    *,
    done_visits: int = 0,
    done_images: int | None = None,
) -> PlanCost:
    """Return what is left of the plan.

    Of a plan whose length and order are decided on the way, the most that it may come to: all
    visits, in the order of the sweep, each after the longest wait.

    Args:
        start: seed architecture.
        final: full width.
        settings: of growth.
        images: in the training set.
        done_visits: extensions that are done.
        done_images: image passes of training that are done; None: those up to the last extension
            that is done.
    """
    model = CostModel(start, settings, images)
    # Sites are compared by TINY's neurons as they are, whatever method then adds some.
    plain = replace(settings, method="tiny", refinement=RefinementSettings())
    plain = replace(plain, amplitude=searching(settings.amplitude))
    chooser = CostModel(start, plain, images)
    reach = start.middle_widths, final.middle_widths
    plan = list(visits(*reach, settings.extensions, settings.where.width_multiple))
    most = most_trainings(settings)
    trained = [most * (settings.train_after == "site" or visit.ends_sweep) for visit in plan]
    if most > 1:
        trained[0] += most  # before the first extension
        done_images = None  # earlier waits may have been shorter
    each = settings.epochs_between * images
    done = each * sum(trained[:done_visits]) if done_images is None else float(done_images)
    widths = begin = start.middle_widths
    costs, end = [], 0.0
    for number, (visit, trains) in enumerate(zip(plan, trained, strict=True)):
        extension = None
        count = visit.target - widths[visit.index]
        if settings.method != "none" and count > 0:
            if number >= done_visits:
                extension = model.extension(visit.index, widths, count)
                if settings.open_ended:
                    targets = next_targets(plan[number:], widths)
                    extension = with_choice(extension, chooser, widths, targets, most)
            widths = (*widths[: visit.index], visit.target, *widths[visit.index + 1 :])
        first, end = end, end + each * trains
        left = max(0.0, end - max(first, done))
        if number < done_visits:
            begin = widths
        if number >= done_visits or left:
            size, forward = model.size(visit.index), model.forward(widths)
            costs.append(VisitCost(visit.index, size, forward, left, extension))
    return PlanCost(
        begin=replace(start, middle_widths=begin),
        end=replace(start, middle_widths=widths),
        forwards=(model.forward(begin), model.forward(widths)),
        visits=tuple(costs),
        evaluation=most * sum(c.forward for c in costs) + (done_visits == 0) * model.forward(begin),
        at_most=settings.open_ended,
    )


def parameters_of(architecture: Architecture) -> int:
    """Return the number of parameters; no generator of random numbers moves."""
    return count_parameters(_built(architecture))


def _built(architecture: Architecture) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # building draws from the global generator
        return build_network(architecture)


def _update_products(second: LayerShape) -> int:
    return math.prod(second.output_size) * second.patch * (second.patch + second.outputs)


def _eigenvectors(size: int) -> float:
    return 0.5 * 9.0 * size**3


def _layer(shape: LayerShape) -> nn.Conv2d | nn.Linear:
    """Return a layer without numbers in it that has the channels of `shape`."""
    if shape.input_size:
        return nn.Conv2d(shape.inputs, shape.outputs, 1, device="meta")
    return nn.Linear(shape.inputs, shape.outputs, device="meta")
