"""What a method of growth gets and gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tinygrow.growth.bottleneck import Neurons
from tinygrow.growth.sites import Site
from tinygrow.settings.growth import GrowthSettings
from tinygrow.training.batches import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a method may look at.

    Attributes:
        network: before the extension; not to be changed.
        site: where.
        count: neurons wanted.
        sample: gives that many random, augmented training images in mini-batches.
        available: training images there are.
        settings: of growth.
        generator: for random choices, on the CPU.
    """

    network: nn.Module
    site: Site
    count: int
    sample: Callable[[int], Sequence[Batch]]
    available: int
    settings: GrowthSettings
    generator: torch.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """New neurons, and what was learnt on the way.

    Attributes:
        neurons: unscaled; may be fewer than asked for.
        bottleneck: Psi^2 at the site before the extension, where the method measures it.
        update_batches: the images on which it was measured.
        images: images of the moments (a forward and half a backward pass each).
        seconds_statistics: wall time.
        seconds_solve: wall time.
    """

    neurons: Neurons
    bottleneck: float | None = None
    update_batches: Sequence[Batch] = ()
    images: int = 0
    seconds_statistics: float = 0.0
    seconds_solve: float = 0.0


Method = Callable[[Request], Proposal]
