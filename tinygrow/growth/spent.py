"""What training and growth have cost in multiply-adds: counted afterwards, from their log.

Conventions, those of `tinygrow.growth.cost`. An image pass of training is three forward passes of
the network at its width at that time: one forward, two backward (gradients of activations and of
weights), although the first layer needs no gradient of its input. Convolutions and linear layers
count, and nothing else: no BatchNorm, no optimiser, no evaluation. What growth does besides
training is kept apart. Of a choice between sites the log holds the images of its moments alone: a
forward and a backward pass each, without its searches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Protocol, Self

from tinygrow.architecture import Architecture
from tinygrow.growth.cost import CostModel, amplitudes
from tinygrow.growth.neurons.method import SETTLED
from tinygrow.networks.cost import TRAINING_PASSES
from tinygrow.settings.growth import GrowthSettings


class Logged(Protocol):
    """What of a row of the growth log is counted; see `tinygrow.growth.log.ExtensionRow`."""

    @property
    def extension(self) -> int: ...  # noqa: D102
    @property
    def depth(self) -> int | None: ...  # noqa: D102
    @property
    def widths(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def multiply_adds(self) -> int: ...  # noqa: D102
    @property
    def images_seen(self) -> int: ...  # noqa: D102
    @property
    def statistics_images(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Multiply-adds.

    Attributes:
        training: of image passes of training.
        statistics: of moments: forward and backward passes, and products of patches.
        solve: of linear algebra.
        search: of normalisation, sign, line search and further passes over new neurons.
        surgery: of running statistics, and of the bottleneck measured again.
    """

    training: float = 0.0
    statistics: float = 0.0
    solve: float = 0.0
    search: float = 0.0
    surgery: float = 0.0

    def __add__(self, other: Self) -> Self:
        """Add part by part."""
        parts = zip(self.__slots__, astuple(self), astuple(other), strict=True)
        return type(self)(**{name: a + b for name, a, b in parts})

    @property
    def growth(self) -> float:
        """All that growth does besides training."""
        return self.statistics + self.solve + self.search + self.surgery

    @property
    def total(self) -> float:
        """All of it."""
        return self.training + self.growth


def training_spent(images: float, multiply_adds: float) -> Spent:
    """Return what image passes of training cost.

    Args:
        images: image passes.
        multiply_adds: of a forward pass of one image, at the width of the time.
    """
    return Spent(training=TRAINING_PASSES * images * multiply_adds)


def growth_spent(
    rows: Sequence[Logged],
    losses: Mapping[int, int],
    start: Architecture,
    settings: GrowthSettings,
    available: int,
) -> list[Spent]:
    """Return what each row of a growth log cost: an extension, and the training behind it.

    Args:
        rows: from the seed network on, at which nothing is spent.
        losses: by extension, those that its line search looked at; none for extensions that came to
            no neurons.
        start: seed architecture.
        settings: of growth.
        available: training images there are.
    """
    model = CostModel(start, settings, available)
    indices = {site.depth: site.index for site in model.sites}
    spent = [Spent()] if rows else []
    for before, row in pairwise(rows):
        images = row.statistics_images - before.statistics_images
        looks = losses.get(row.extension)
        done = training_spent(row.images_seen - before.images_seen, row.multiply_adds)
        if row.depth is not None and (images or looks):
            index = indices[row.depth]
            extension, own = _extension(model, index, before.widths, row.widths, looks)
            done, images = done + extension, max(0, images - own)
        spent.append(done + Spent(statistics=2.0 * images * before.multiply_adds))
    return spent


def _extension(
    model: CostModel,
    index: int,
    before: Sequence[int],
    after: Sequence[int],
    losses: int | None,
) -> tuple[Spent, int]:
    """Return what an extension cost without training, and the images of its moments."""
    cost = model.extension(index, before, after[index] - before[index])
    found = Spent(statistics=cost.statistics, solve=cost.solve)
    if losses is not None:
        more = 0
        if model.settings.method not in SETTLED:  # those are looked at as they are
            more = losses - amplitudes(model.settings.amplitude)
        search = cost.first_looks + cost.search + more * cost.search_loss
        found += Spent(search=search)
        if after[index] > before[index]:
            found += Spent(surgery=cost.surgery, solve=cost.surgery_solve)
    return found, cost.statistics_images
