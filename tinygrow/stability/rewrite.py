"""From stable units to a smaller network that computes the same (LEO++).

The rules are those of Serra, Yu, Kumar and Ramalingam, NeurIPS 2021, section 5.4, for dense layers;
for convolutions what holds at every position of a map, zero padding among it. A step is taken
because a proof says so, never because weights are small.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from tinygrow.data.prepared import DataCard
from tinygrow.networks.compressed import call_of, sum_of
from tinygrow.networks.tracing import trace
from tinygrow.settings.compress import CompressSettings
from tinygrow.stability.dependence import dependent_rows
from tinygrow.stability.found import Stability
from tinygrow.stability.program import Convolution, Linear, Program, program_of
from tinygrow.stability.spaces import Space, constant_values, spaces_of, unpadded
from tinygrow.stability.steps import Rewriter, Step

Action = Literal["removed", "merged", "constant", "folded"]

DELETIONS = frozenset(("remove", "stream", "shortcut"))
"""Steps that leave all other weights as they are, bit by bit."""

_ACTIONS: dict[str, Action] = {"constant": "constant", "merge": "merged", "fold": "folded"}
_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A compressed network.

    Attributes:
        network: float64, in evaluation mode.
        structure: of it, for its architecture; empty where nothing was done.
        steps: that led there.
        actions: what became of each unit that is gone, by layer and index before.
        constants: what units among them always are before their ReLU, where weights alone say so.
        notes: in words, what could have gone and did not.
    """

    network: nn.Module
    structure: dict[str, Any]
    steps: tuple[Step, ...]
    actions: dict[tuple[str, int], Action]
    constants: dict[tuple[str, int], float]
    notes: tuple[str, ...]


def rewrite(
    folded: nn.Module, card: DataCard, stability: Stability, settings: CompressSettings
) -> Rewritten:
    """Take out of a network what stability makes superfluous.

    Args:
        folded: from `fold_batch_norm`; not changed.
        card: of the data.
        stability: found of it.
        settings: which rewrites are wanted.
    """
    planner = _Planner(folded, card, stability, settings)
    if settings.rewrites != "none":
        for _ in range(_ROUNDS):
            if not planner.round():
                break
    rewriter = planner.rewriter
    return Rewritten(
        network=rewriter.network,
        structure=rewriter.structure(),
        steps=tuple(planner.steps),
        actions=planner.actions,
        constants=planner.constants,
        notes=tuple(planner.notes.values()),
    )


def replay(folded: nn.Module, steps: tuple[Step, ...]) -> nn.Module:
    """Return the network that steps make, in float64.

    Raises:
        TinygrowError: a step does not fit the network.
    """
    rewriter = Rewriter(copy.deepcopy(folded).double())
    for step in steps:
        rewriter.apply(step)
    return rewriter.network


class _Planner:
    """Looks for steps, and takes each of them at once."""

    def __init__(
        self, folded: nn.Module, card: DataCard, stability: Stability, settings: CompressSettings
    ) -> None:
        self.card, self.settings = card, settings
        self.rewriter = Rewriter(copy.deepcopy(folded).double())
        self.steps: list[Step] = []
        self.notes: dict[tuple[str, str], str] = {}  # by place and kind: the last one counts
        self.actions: dict[tuple[str, int], Action] = {}
        self.constants: dict[tuple[str, int], float] = {}
        # A unit that float32 may still show above zero is no deletion.
        self.inactive = {
            found.layer: {p.index for p in found.proved if p.kind == "inactive" and p.in_float32}
            for found in stability.layers
        }
        self.active = {found.layer: {*found.stable("active")} for found in stability.layers}

    def round(self) -> bool:
        """Take what steps there are; say whether another round may find more."""
        network = self.rewriter.network
        program = program_of(copy.deepcopy(network).float(), self.card)
        values = constant_values(
            program, network, self._places(self.inactive), self._places(self.active)
        )
        known = {path: values[path].tolist() for path in self.rewriter.kept if path in values}
        for path, numbers in known.items():
            for unit, number in zip(self.rewriter.kept[path], numbers, strict=True):
                if not math.isnan(number):
                    self.constants.setdefault((path, unit), number)
        every = self.settings.rewrites == "all"
        if every and self._constant_network(program, values[program.nodes[-1].name]):
            return False
        if self._shortcut(program, values):
            return True
        spaces = spaces_of(program, network)
        before = len(self.steps)
        for space in spaces:
            self._zeros(space, values)
        if every:
            for space in spaces:
                self._constants(space, values)
            if any(self._fold(space) for space in spaces):
                return True
            for space in spaces:
                self._merge(space)
        return len(self.steps) > before

    def _take(self, step: dict[str, Any]) -> None:
        before = {(path, unit) for path, units in self.rewriter.kept.items() for unit in units}
        layers = list(self.rewriter.kept)
        self.rewriter.apply(step)
        kept = self.rewriter.kept
        if step["op"] in ("shortcut", "constant_network"):
            gone = [path for path in layers if path not in kept]
            step = step | {"dropped": [path for path in gone if path != step["layer"]]}
            if step["op"] == "shortcut":
                step["dropped"].append(step["layer"])
        self.steps.append(step)
        left = {(path, unit) for path, units in kept.items() for unit in units}
        action = _ACTIONS.get(step["op"], "removed")
        self.actions |= {unit: action for unit in sorted(before - left)}

    def _note(self, where: str, kind: str, what: str) -> None:
        self.notes[where, kind] = f"{where}: {what}"

    def _places(self, units: dict[str, set[int]]) -> dict[str, list[int]]:
        """Return where units stand by now."""
        kept = self.rewriter.kept
        return {
            path: [i for i, unit in enumerate(kept[path]) if unit in known]
            for path, known in units.items()
            if path in kept
        }

    def _constant_network(self, program: Program, logits: torch.Tensor) -> bool:
        """Case A of the paper: a whole layer is inactive, and nothing hangs on the image."""
        last = program.nodes[-1]
        if bool(torch.isnan(logits).any()):
            return False
        if not isinstance(last, Linear):
            self._note(last.name, "constant", "the network is constant, but ends in no dense layer")
            return False
        if self.rewriter.layer(last.name).in_features == 1 and len(self.rewriter.kept) == 1:
            return False
        self._take({"op": "constant_network", "layer": last.name, "logits": logits.tolist()})
        return True

    def _shortcut(self, program: Program, values: dict[str, torch.Tensor]) -> bool:
        """Take out one branch of a sum that is the same for every image."""
        graph = trace(self.rewriter.network).graph
        for node in program.nodes:
            if not isinstance(node, Convolution | Linear):
                continue
            value = values[node.name]
            if bool(torch.isnan(value).any()):
                continue
            try:
                sum_of(call_of(graph, node.name), self.rewriter.network)
            except LookupError:
                continue
            # What the layer reads is always zero, or its weights are: its bias is what it gives.
            kind = "constant" if bool(value.any()) else "zero"
            self._take({"op": "shortcut", "layer": node.name, "kind": kind})
            return True
        return False

    def _zeros(self, space: Space, values: dict[str, torch.Tensor]) -> None:
        """Take out channels that no reader ever sees other than zero."""
        if not space.readers:
            return
        reads = torch.stack([values[space.read[reader]] for reader in space.readers])
        zero = (reads == 0).all(0)
        if not bool(zero.any()):
            return
        count, where = int(zero.sum()), ", ".join(space.writers) or space.nodes[0]
        if space.blocked or not space.writers:
            self._note(where, "zero", f"{count} channels always 0 stay: {space.blocked}")
            return
        if bool(zero.all()):
            zero[0] = False
            self._note(where, "all", "all channels are always 0, and one stays to be read")
        units = self._units(space.writers[0], zero)
        if not units:
            return
        if len(space.writers) == len(space.readers) == 1 and not space.shifts:
            one = {"op": "remove", "layer": space.writers[0], "reader": space.readers[0]}
            self._take(one | {"units": units})
            return
        ends = {"writers": list(space.writers), "readers": list(space.readers)}
        self._take({"op": "stream", **ends, "shifts": list(space.shifts), "units": units})

    def _constants(self, space: Space, values: dict[str, torch.Tensor]) -> None:
        """Move channels that are always the same number into the bias of what reads them."""
        if space.blocked or not space.readers or not space.writers:
            return
        # Some of the channels may be gone since the values were read: those were zero.
        reads = torch.stack([values[space.read[reader]] for reader in space.readers])
        constant = (~torch.isnan(reads) & (reads != 0)).all(0)
        if not bool(constant.any()):
            return
        path, count = space.writers[0], int(constant.sum())
        if len(space.writers) != 1 or len(space.readers) != 1 or space.shifts:
            where = ", ".join(space.writers)
            self._note(where, "constant", f"{count} constant channels stay: they are in a stream")
            return
        reader = space.readers[0]
        if not unpadded(self.rewriter.layer(reader)):
            self._note(
                path,
                "constant",
                f"{count} constant channels stay: behind the zero padding of {reader} they are no"
                " constant",
            )
            return
        left = (reads[0] != 0).sum() - count  # NaN is not 0
        if not int(left):
            constant[int(constant.nonzero()[0])] = False
        # Positions are those before zeros were taken out.
        every = self._before_zeros(space, reads)
        chosen = [(every[i], float(reads[0, i])) for i in constant.nonzero().flatten().tolist()]
        if chosen:
            units, numbers = (list(column) for column in zip(*chosen, strict=True))
            step = {"op": "constant", "layer": path, "reader": reader}
            self._take(step | {"units": units, "values": numbers})

    def _before_zeros(self, space: Space, reads: torch.Tensor) -> list[int]:
        """Return the unit of each position that the values of this round speak of."""
        kept = iter(self.rewriter.kept[space.writers[0]])
        gone = (reads == 0).all(0)
        if bool(gone.all()):
            gone[0] = False
        return [-1 if lost else next(kept) for lost in gone.tolist()]

    def _fold(self, space: Space) -> bool:
        """Case B: a dense layer of active units is affine, and goes into the next one."""
        if not space.private or space.blocked:
            return False
        path, reader = space.writers[0], space.readers[0]
        layer, second = self.rewriter.layer(path), self.rewriter.layer(reader)
        if not isinstance(layer, nn.Linear) or not isinstance(second, nn.Linear):
            return False
        if not {*self.rewriter.kept[path]} <= self.active.get(path, set()):
            return False
        if second.out_features * layer.in_features > layer.weight.numel() + second.weight.numel():
            self._note(path, "fold", f"affine, but stays: folded into {reader} it would be larger")
            return False
        self._take({"op": "fold", "layer": path, "reader": reader})
        return True

    def _merge(self, space: Space) -> None:
        """Case D: active units that are combinations of others go into what reads these."""
        if not space.private or space.blocked:
            return
        path, reader = space.writers[0], space.readers[0]
        layer, second = self.rewriter.layer(path), self.rewriter.layer(reader)
        kept = self.rewriter.kept[path]
        places = [i for i, unit in enumerate(kept) if unit in self.active.get(path, set())]
        if len(places) < 2:
            return
        rows = layer.weight.detach()[places].flatten(1)
        free = unpadded(second)
        if not free and layer.bias is not None:
            rows = torch.cat([rows, layer.bias.detach()[places, None]], 1)
        found = dependent_rows(
            rows, self.settings.merge_tolerance, self.settings.largest_coefficient
        )
        if not found.rows:
            return
        step = {"op": "merge", "layer": path, "reader": reader}
        units = {
            "units": [kept[places[i]] for i in found.rows],
            "into": [kept[places[i]] for i in found.basis],
            "coefficients": found.coefficients.tolist(),
        }
        self._take(step | units | {"residual": found.residual})

    def _units(self, path: str, chosen: torch.Tensor) -> list[int]:
        kept = self.rewriter.kept[path]
        return [unit for unit, yes in zip(kept, chosen.tolist(), strict=True) if yes]
