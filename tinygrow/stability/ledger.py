"""What is proved and what was seen so far, unit by unit, while the search goes on."""

from collections.abc import Mapping

import torch

from tinygrow.stability.evaluate import evaluate
from tinygrow.stability.found import Kind, LayerStability, Method, Proof, Witnesses
from tinygrow.stability.interval import Bounds
from tinygrow.stability.program import Node, Program

# A float64 evaluation is off by this share of what float32 may be off by; u64 / u32 is half of it.
_DRIFT64 = 2.0**-28


def greatest(values: torch.Tensor) -> torch.Tensor:
    """Return the maximum over the positions of each channel; dense layers have one position."""
    return values.flatten(1).amax(1) if values.ndim > 1 else values


class Ledger:
    """Keeps proofs, and images on which units were seen above and below zero.

    Args:
        program: that is searched.
        bounds: interval bounds of its nodes.
    """

    def __init__(self, program: Program, bounds: Mapping[str, Bounds]) -> None:
        self.program, self.bounds = program, bounds
        self.layers = program.layers()
        self.width = {layer.name: layer.shape[0] for layer in self.layers}
        self.slack = {n: greatest(bounds[n].drift) for n in self.width}
        self.proofs: dict[str, dict[tuple[int, Kind], Proof]] = {n: {} for n in self.width}
        self.above, self.below = (
            {n: torch.full((w,), -1, dtype=torch.int64) for n, w in self.width.items()}
            for _ in range(2)
        )
        self.images: list[torch.Tensor] = []

    def settle(self, layer: str, lower: torch.Tensor, upper: torch.Tensor, method: Method) -> None:
        """Take bounds of each unit (width,), float64; the proofs that were there first stay."""
        for index in (upper <= 0).nonzero().flatten().tolist():
            self.prove(layer, index, "inactive", float(upper[index]), method)
        for index in (lower >= 0).nonzero().flatten().tolist():
            self.prove(layer, index, "active", float(lower[index]), method)

    def settle_node(self, node: Node, bounds: Bounds, method: Method) -> None:
        """Take bounds of each number that a layer gives."""
        self.settle(node.name, -greatest(-bounds.lower), greatest(bounds.upper), method)

    def prove(self, layer: str, index: int, kind: Kind, bound: float, method: Method) -> None:
        """Take one proof, unless there is one."""
        proof = Proof(
            layer=layer,
            index=index,
            kind=kind,
            bound=bound,
            method=method,
            margin=abs(bound),
            slack=float(self.slack[layer][index]),
        )
        self.proofs[layer].setdefault((index, kind), proof)

    def open(self, layer: str, kind: Kind) -> list[int]:
        """Return the units that may yet be of a kind: not settled, and not seen otherwise.

        A unit that is proved of the other kind is settled.
        """
        seen = self.above if kind == "inactive" else self.below
        proofs = self.proofs[layer]
        return [
            index
            for index in (seen[layer] < 0).nonzero().flatten().tolist()
            if (index, "inactive") not in proofs and (index, "active") not in proofs
        ]

    def any_open(self) -> bool:
        """Say whether anything is left to find out."""
        return any(self.open(name, k) for name in self.width for k in ("inactive", "active"))

    def see(self, images: torch.Tensor) -> int:
        """Note what normalised images (B, C, H, W) show, in float64; return how much is new."""
        new = 0
        with torch.no_grad():
            for begin in range(0, len(images), 64):
                batch = images[begin : begin + 64]
                values = evaluate(self.program, batch.double(), self.width)
                new += self._note(batch, values)
        return new

    def _note(self, batch: torch.Tensor, values: Mapping[str, torch.Tensor]) -> int:
        kept: dict[int, int] = {}
        new = 0
        for name, value in values.items():
            least = self.slack[name] * _DRIFT64  # what float64 may be off by shows nothing
            flat = value.flatten(2) if value.ndim > 2 else value[..., None]
            for seen, tops in ((self.above[name], flat.amax(2)), (self.below[name], -flat.amin(2))):
                shown = tops > least
                for unit in ((seen < 0) & shown.any(0)).nonzero().flatten().tolist():
                    row = int(shown[:, unit].int().argmax())
                    if row not in kept:
                        kept[row] = len(self.images)
                        self.images.append(batch[row].clone())
                    seen[unit] = kept[row]
                    new += 1
        return new

    def witnesses(self) -> Witnesses:
        """Return the images that were kept, and what they show."""
        empty = torch.empty(0, *self.program.input.shape)
        images = torch.stack(self.images) if self.images else empty
        return Witnesses(images, dict(self.above), dict(self.below))

    def layer(self, name: str) -> LayerStability:
        """Return the findings of a layer as they stand."""
        proofs = sorted(self.proofs[name].values(), key=lambda p: (p.index, p.kind))
        settled = {proof.index for proof in proofs}

        def seen(where: torch.Tensor) -> tuple[int, ...]:
            return tuple(i for i in (where >= 0).nonzero().flatten().tolist() if i not in settled)

        return LayerStability(
            layer=name,
            width=self.width[name],
            proved=tuple(proofs),
            refuted_inactive=seen(self.above[name]),
            refuted_active=seen(self.below[name]),
            unknown_inactive=tuple(self.open(name, "inactive")),
            unknown_active=tuple(self.open(name, "active")),
        )
