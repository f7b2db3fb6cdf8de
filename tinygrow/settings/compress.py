"""Exact compression: how stable units are looked for, and what is done about them."""

from dataclasses import dataclass, field
from typing import Literal

from tinygrow.settings.check import MAX_COUNT, above, at_least, between, one_of

Bounds = Literal["interval", "crown"]
MILP = Literal["off", "isa", "per_neuron"]
Rewrites = Literal["all", "deletions", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilitySettings:
    """The ladder that decides which units are stable; each rung is sound.

    Attributes:
        bounds: `interval` arithmetic alone, or `crown` linear bounds as well.
        exact: whole-number arithmetic for dense float32 layers, where nothing is rounded.
        milp: what is asked of a solver about units that no bound has settled: nothing (`off`), the
            one program of the paper (`isa`), or two programs a unit (`per_neuron`).
        milp_seconds: for all programs of a model together; what is not settled then stays unknown.
        data_images: training images that may show a unit on either side of zero; 0: none.
        pgd_steps: of the search for inputs that show it; 0: no search.
        pgd_starts: inputs that the search begins from, for each unit.
    """

    bounds: Bounds = "interval"
    exact: bool = True
    milp: MILP = "off"
    milp_seconds: float = 60.0
    data_images: int = 512
    pgd_steps: int = 0
    pgd_starts: int = 8

    def __post_init__(self) -> None:
        one_of("bounds", self.bounds, ("interval", "crown"))
        one_of("milp", self.milp, ("off", "isa", "per_neuron"))
        above("milp_seconds", self.milp_seconds, 0)
        between("data_images", self.data_images, 0, MAX_COUNT)
        between("pgd_steps", self.pgd_steps, 0, MAX_COUNT)
        between("pgd_starts", self.pgd_starts, 1, MAX_COUNT)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressSettings:
    """What is taken out of a finished network without changing what it computes.

    Attributes:
        stability: how stable units are found.
        rewrites: `all`; `deletions` of what is zero, which leave every other weight as it is, bit
            by bit; `none` only finds.
        merge_tolerance: relative residual up to which the weights of an active unit count as a
            combination of those of others.
        largest_coefficient: of such a combination; larger ones amplify rounding and are refused.
    """

    stability: StabilitySettings = field(default_factory=StabilitySettings)
    rewrites: Rewrites = "all"
    merge_tolerance: float = 1e-12
    largest_coefficient: float = 100.0

    def __post_init__(self) -> None:
        one_of("rewrites", self.rewrites, ("all", "deletions", "none"))
        between("merge_tolerance", self.merge_tolerance, 0, 1e-3)
        at_least("largest_coefficient", self.largest_coefficient, 1)
