"""What the search for stable units has found: proved, refuted with a witness, or unknown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

Kind = Literal["inactive", "active"]
Method = Literal["interval", "exact", "crown", "milp"]


@dataclass(frozen=True, slots=True)
class Slopes:
    """The lines that stand for a ReLU, number by number; any slopes are sound.

    Attributes:
        rising: float32, flat, of the lines above the ReLU.
        resting: float32, flat, of the lines below it.
    """

    rising: torch.Tensor
    resting: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A linear bound on one pre-activation, found backwards through the program (CROWN).

    For every normalised image x of the domain, with all numbers as they are and real arithmetic,
    y <= coefficients . x + constant (`upper`), or y >= the same (`lower`).

    To check lines, take them in their order, with bounds [l, u] of every number that start as its
    interval bounds. Each begins with coefficient 1 on its own number and runs backwards to the
    image. For `upper`, with -1 and at last the opposite for `lower`:

    - an affine operation turns coefficients on what it gives into ones on what it reads, and its
      bias into a constant; a sum hands them to both; what is read twice collects both;
    - a ReLU that reads z in [l, u] becomes d z + t. Where the coefficient is positive, d is the
      rising slope and t = max(relu(l) - d l, relu(u) - d u); where it is negative, d is the resting
      slope and t the smaller of the two, and of 0 where l < 0 < u. Both are sound for any d;
    - anything else (a maximum pooling, what is not supported) ends the way: a positive coefficient
      times its upper interval bound, a negative one times the lower, joins the constant.

    The greatest value on the box of the image bounds y, and tightens [l, u] of that number for the
    lines behind it. A unit is proved inactive where u <= 0 at all positions, active where l >= 0.

    Attributes:
        layer: the node whose output it bounds: a layer's module path, or the name of a sum.
        unit: channel or unit.
        position: flat index into the map of the channel; 0 for a dense layer.
        side: which bound it is.
        bound: of the line on the box, outward.
        constant: with all rounding of the search added outward.
        coefficients: on the normalised image, float64, flat (C H W); None for lines that only
            tighten bounds for others, and where they would take too much room.
    """

    layer: str
    unit: int
    position: int
    side: Literal["upper", "lower"]
    bound: float
    constant: float
    coefficients: torch.Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """That a unit is stable: on one side of zero, at all positions, for every image of the domain.

    Attributes:
        layer: module path of the layer whose folded pre-activation it is.
        index: of the channel or unit.
        kind: `inactive`: at most 0; `active`: at least 0.
        bound: upper bound of an inactive unit, lower one of an active one; the worst position.
            In real arithmetic, outward. A solver's is that of its tolerances.
        method: what proved it. A solver's word (`milp`) is no more than that.
        margin: distance of the bound from 0.
        slack: how far float32 may stray from real arithmetic, in whatever order it sums. The unit
            is stable in float32 as well where the margin is no smaller (sums of products; not
            Winograd, FFT, TF32 or half precision).
    """

    layer: str
    index: int
    kind: Kind
    bound: float
    method: Method
    margin: float
    slack: float

    @property
    def in_float32(self) -> bool:
        """Say whether it holds under float32 rounding, too."""
        return self.margin >= self.slack


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStability:
    """What was found of the units of one layer.

    A unit that is always 0 is proved twice. One that is proved of one kind is in no list of the
    other.

    Attributes:
        layer: module path.
        width: its units.
        proved: with proofs, by index.
        refuted_inactive: seen above 0: not inactive.
        refuted_active: seen below 0: not active.
        unknown_inactive: neither proved nor seen above 0.
        unknown_active: neither proved nor seen below 0.
    """

    layer: str
    width: int
    proved: tuple[Proof, ...]
    refuted_inactive: tuple[int, ...]
    refuted_active: tuple[int, ...]
    unknown_inactive: tuple[int, ...]
    unknown_active: tuple[int, ...]

    def stable(self, kind: Kind) -> tuple[int, ...]:
        """Return the units that are proved of a kind."""
        return tuple(proof.index for proof in self.proved if proof.kind == kind)

    @property
    def unstable(self) -> tuple[int, ...]:
        """Return the units that were seen on both sides of 0."""
        return tuple(sorted(set(self.refuted_inactive) & set(self.refuted_active)))


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Images on which units were seen on one side of zero.

    Attributes:
        images: float32 (n, C, H, W), normalised, inside of the domain's box.
        above: for each layer, int64 (width,): the image on which the unit was above 0, or -1.
        below: likewise below 0.
    """

    images: torch.Tensor
    above: Mapping[str, torch.Tensor] = field(default_factory=dict)
    below: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stability:
    """The result of the search.

    Attributes:
        layers: those whose output goes into ReLUs alone, in the order in which they run.
        seconds: that each rung took, by its name.
        notes: what was left out, and why, in words.
        witnesses: of all that was refuted.
        lines: the linear bounds behind proofs of method `crown`, and those that they lean on, in
            the order in which they may be checked.
        slopes: of the ReLUs for all of the lines, by the name of the node that the ReLU reads.
    """

    layers: tuple[LayerStability, ...]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]
    witnesses: Witnesses
    lines: tuple[Line, ...] = ()
    slopes: Mapping[str, Slopes] = field(default_factory=dict)

    def __getitem__(self, layer: str) -> LayerStability:
        """Return the findings of a layer."""
        return next(found for found in self.layers if found.layer == layer)

    def counts(self) -> dict[str, int]:
        """Return how many statements (two a unit) are proved, refuted and unknown.

        The other statement of a proved unit is not counted.
        """
        return {
            "proved": sum(len({p.index for p in found.proved}) for found in self.layers),
            "refuted": sum(len(f.refuted_inactive) + len(f.refuted_active) for f in self.layers),
            "unknown": sum(len(f.unknown_inactive) + len(f.unknown_active) for f in self.layers),
        }
