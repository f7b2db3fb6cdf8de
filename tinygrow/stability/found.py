"""What the search for stable units has found: proved, refuted with a witness, or unknown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

Kind = Literal["inactive", "active"]
Method = Literal["interval", "exact", "crown", "milp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A linear bound on the pre-activation of one unit at one position, and what proves it.

    For every normalised image x of the domain, with all numbers as they are and real arithmetic,
    y <= coefficients . x + constant (`upper`) or y >= ... (`lower`). To check it, start with
    coefficient 1 on the unit and go backwards through the program. An affine operation turns
    coefficients on what it gives into coefficients on what it reads, plus a constant. A ReLU with
    pre-activation z in [l, u] and shipped slope d is replaced by d z + t, where any d is sound
    with t = max of relu(z) - d z over l, u (coefficient on the ReLU positive, and upper bound), or
    its minimum over l, u and, where l < 0 < u, 0 (coefficient negative); for `lower` the two change
    places. A maximum pooling ends the way: its upper or lower interval bound joins the constant.
    l and u are interval bounds, tightened by the lines of earlier layers in `Stability.lines`.
    The bound is then the greatest (least) value of the line on the box of the input.

    Attributes:
        layer: the node whose output it bounds: a layer's module path, or the name of a sum.
        unit: channel or unit.
        position: flat index into the map of the channel; 0 for a dense layer.
        side: which bound it is.
        slopes: for each ReLU on the way, by the name of the node it reads, float32, flat: the
            slope of each of its numbers.
        coefficients: on the normalised image, float64, flat (C H W).
        constant: float64, with all rounding of the search added outward.
        bound: of the line on the box, outward.
    """

    layer: str
    unit: int
    position: int
    side: Literal["upper", "lower"]
    slopes: Mapping[str, torch.Tensor]
    coefficients: torch.Tensor
    constant: float
    bound: float


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
    """

    layers: tuple[LayerStability, ...]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]
    witnesses: Witnesses
    lines: tuple[Line, ...] = ()

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
