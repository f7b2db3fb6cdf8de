"""What a plan may look at: how far growth has come, and what is measured on demand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tinygrow.growth.log import ExtensionRow
from tinygrow.growth.schedule import Visit
from tinygrow.growth.sites import Site


@dataclass(frozen=True, slots=True)
class Progress:
    """How far growth has come.

    Attributes:
        widths: of all sites.
        visits: that each site has had.
        trainings: since the last extension, or since the beginning.
        losses: mean training losses of those, oldest first.
        accuracy: on the validation images, in percent.
    """

    widths: tuple[int, ...]
    visits: tuple[int, ...]
    trainings: int = 0
    losses: tuple[float, ...] = ()
    accuracy: float = 0.0


class Finding(Protocol):
    """What new neurons promise at one site."""

    @property
    def predicted(self) -> float:
        """The fall of the loss to first order, by the singular values on the fitting images."""

    def significance(self) -> float:
        """Return the gain to first order on held-out images, in standard errors."""

    def gain(self) -> float:
        """Return the loss that they take off held-out images, in nats."""


class Evidence(Protocol):
    """What can be measured before a choice. Each question may take time."""

    def fitting(self, visit: Visit) -> int:
        """Return how many of a visit's neurons the budgets leave room for."""

    def cost(self, visit: Visit) -> float:
        """Return the cost of a visit's neurons, in the unit of the score."""

    def study(self, visits: Sequence[Visit]) -> Mapping[int, Finding]:
        """Return findings by the index of the site."""


def progress_of(
    rows: Sequence[ExtensionRow], sites: Sequence[Site], widths: tuple[int, ...]
) -> Progress:
    """Read progress from the growth log, whose row 0 is the seed network.

    Args:
        rows: so far.
        sites: in order of depth.
        widths: as they are now.
    """
    names = [row.site for row in rows]
    since = rows[1:]
    for number, row in enumerate(rows):
        if row.site is not None:
            since = rows[number:]
    losses = [row.train_loss for row in since if row.train_loss is not None]
    return Progress(
        widths=widths,
        visits=tuple(names.count(site.name) for site in sites),
        trainings=len(since),
        losses=tuple(loss for loss in losses if not math.isnan(loss)),
        accuracy=rows[-1].validation_accuracy,
    )
