"""Where a network may grow: a pair of layers around a width that nothing else reads."""

from dataclasses import dataclass

from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.errors import TinygrowError
from tinygrow.growth.patches import Layer, check_layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A growable width, private to the path `first` - (norm) - activation - `second`.

    Attributes:
        depth: number of the layer `first` in the paper's count (the stem is 1).
        index: position in `Architecture.middle_widths`.
        first: module path of the layer whose outputs are added (fan-in weights).
        norm: module path of the per-channel normalisation behind `first`, or None.
        second: module path of the layer that reads them (fan-out weights).
    """

    depth: int
    index: int
    first: str
    norm: str | None
    second: str

    @property
    def name(self) -> str:
        """The module path of the layer that widens."""
        return self.first

    def layers(self, network: nn.Module) -> tuple[Layer, Layer]:
        """Return the two layers, `first` and `second`, in `network`.

        Raises:
            TinygrowError: growth cannot read one of them, or they are of two kinds.
        """
        first, second = (
            check_layer(network.get_submodule(name), name) for name in (self.first, self.second)
        )
        if type(first) is not type(second):
            raise TinygrowError(
                f"{self.first} is a {type(first).__name__} and {self.second} a"
                f" {type(second).__name__}; growth needs two layers of the same kind"
            )
        return first, second


def sites_of(architecture: Architecture) -> list[Site]:
    """Return the growable widths in order of depth (tiny.md 1.11: 2, 4, 7, 9, 12, ...)."""
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
