"""Which network is grown, from which start to which final widths."""

from dataclasses import dataclass

from tinygrow.settings.check import above, at_least, require


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetSettings:
    """The growable residual network of the paper (tiny.md 1.11).

    Attributes:
        base_width: channels of stem and first stage; each later stage doubles them (ResNet-18: 64).
        blocks: residual blocks of each stage (ResNet-18: 2, 2, 2, 2).
        start: share s of a block's final middle width at which growth begins.
    """

    base_width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    start: float = 0.25

    def __post_init__(self) -> None:
        at_least("base_width", self.base_width, 1)
        require(
            len(self.blocks) > 0 and min(self.blocks, default=0) >= 1,
            "blocks",
            list(self.blocks),
            "it must name at least one stage, each with at least one block",
        )
        above("start", self.start, 0)
        require(self.start <= 1, "start", self.start, "it must be at most 1 (the final width)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MLPSettings:
    """A plain perceptron: Linear, ReLU, ..., Linear.

    Attributes:
        hidden: final widths of the hidden layers.
        start: share of a hidden layer's final width at which growth begins.
    """

    hidden: tuple[int, ...] = (256, 256)
    start: float = 0.25

    def __post_init__(self) -> None:
        require(
            len(self.hidden) > 0 and min(self.hidden, default=0) >= 1,
            "hidden",
            list(self.hidden),
            "it must name at least one width, each at least 1",
        )
        above("start", self.start, 0)
        require(self.start <= 1, "start", self.start, "it must be at most 1 (the final width)")


NetworkSettings = ResNetSettings | MLPSettings
