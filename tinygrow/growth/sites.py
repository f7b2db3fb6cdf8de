"""Where a network may grow: a pair of layers around a width that nothing else reads."""

from dataclasses import dataclass

from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.errors import TinygrowError
from tinygrow.growth.patches import Layer, check_layer
from tinygrow.growth.pooling import Pooling


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A growable width, private to the path `first` - (norm) - activation - `second`.

    Norms, element-wise activations, poolings and dropout may stand there in any order, and a map
    may be flattened for a linear `second`.

    Attributes:
        depth: number of the layer `first` in the paper's count (the stem is 1).
        index: position in `Architecture.middle_widths`.
        first: module path of the layer whose outputs are added (fan-in weights).
        norm: module path of the per-channel normalisation behind `first`, or None.
        second: module path of the layer that reads them (fan-out weights).
        further_norms: module paths of other per-channel normalisations before `second`.
        poolings: of a map before `second`, in the order in which they run.
        note: in words, what is approximate there; empty where nothing is.
    """

    depth: int
    index: int
    first: str
    norm: str | None
    second: str
    further_norms: tuple[str, ...] = ()
    poolings: tuple[Pooling, ...] = ()
    note: str = ""

    @property
    def name(self) -> str:
        """The module path of the layer that widens."""
        return self.first

    @property
    def norms(self) -> tuple[str, ...]:
        """The module paths of all per-channel normalisations between the layers."""
        return (*(() if self.norm is None else (self.norm,)), *self.further_norms)

    def layers(self, network: nn.Module) -> tuple[Layer, Layer]:
        """Return the two layers, `first` and `second`, in `network`.

        Raises:
            TinygrowError: growth cannot read one of them, or `second` does not fit `first`.
        """
        first, second = (
            check_layer(network.get_submodule(name), name) for name in (self.first, self.second)
        )
        width, inputs = first.weight.shape[0], second.weight.shape[1]
        flattened = isinstance(first, nn.Conv2d) and isinstance(second, nn.Linear)
        if inputs != width and not (flattened and inputs % width == 0):
            raise TinygrowError(
                f"{self.first} is a {type(first).__name__} of {width} outputs and {self.second} a"
                f" {type(second).__name__} of {inputs} inputs; growth needs a layer and the one"
                " that reads it"
            )
        if isinstance(first, nn.Linear) and isinstance(second, nn.Conv2d):
            raise TinygrowError(
                f"{self.first} is a Linear and {self.second} a Conv2d; growth goes from"
                " convolutions to linear layers, not back"
            )
        return first, second


def sites_of(architecture: Architecture) -> list[Site]:
    """Return the growable widths in order of depth (tiny.md 1.11: 2, 4, 7, 9, 12, ...).

    Those of the networks built in are known; those of a user's are found (`find_sites`).
    """
    if architecture.kind == "custom":
        from tinygrow.networks.custom import discover  # which finds values of this module

        return list(discover(architecture))
    if architecture.kind == "mlp":
        count = len(architecture.middle_widths)
        names = [f"layers.{i}" for i in range(count)] + ["head"]
        return [
            Site(depth=i + 1, index=i, first=names[i], norm=None, second=names[i + 1])
            for i in range(count)
        ]
    sites: list[Site] = []
    depth = 2
    for stage, blocks in enumerate(architecture.blocks):
        if stage > 0:
            depth += 1
        for block in range(blocks):
            prefix = f"stages.{stage}.block{block}"
            sites.append(
                Site(
                    depth=depth,
                    index=len(sites),
                    first=f"{prefix}.conv1",
                    norm=f"{prefix}.norm1",
                    second=f"{prefix}.conv2",
                )
            )
            depth += 2
    return sites
