"""What a method of growth gets and gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tinygrow.growth.bottleneck import Neurons
from tinygrow.growth.sites import Site
from tinygrow.growth.surgery import NewUnits
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
        settled: the units as they are to be added, where the method fixes their amplitude itself:
            then there is no normalisation, no choice of sign and no search. None: there is.
        factor: the amplitude of settled units, for the log.
        keeps_function: whether settled units leave the network's outputs as they are.
        predicts: whether the squared singular values are parts of the bottleneck (of which each
            neuron takes its own, exactly so for linear layers).
        bottleneck: Psi^2 at the site before the extension, where the method measures it.
        update_batches: the images on which it was measured.
        images: images of the moments (a forward and half a backward pass each).
        seconds_statistics: wall time.
        seconds_solve: wall time.
    """

    neurons: Neurons
    settled: NewUnits | None = None
    factor: float = 1.0
    keeps_function: bool = False
    predicts: bool = True
    bottleneck: float | None = None
    update_batches: Sequence[Batch] = ()
    images: int = 0
    seconds_statistics: float = 0.0
    seconds_solve: float = 0.0


Method = Callable[[Request], Proposal]
