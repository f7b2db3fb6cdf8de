"""Which network is grown, from which start to which final widths."""

import re
from dataclasses import dataclass, field
from typing import Any

from tinygrow.settings.check import MAX_COUNT, above, between, require

MAX_BASE_WIDTH = 4096
MAX_BLOCKS = 1000


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
        between("base_width", self.base_width, 1, MAX_BASE_WIDTH)
        require(
            len(self.blocks) > 0 and all(1 <= count <= MAX_BLOCKS for count in self.blocks),
            "blocks",
            list(self.blocks),
            f"it must name at least one stage, each with 1 to {MAX_BLOCKS} blocks",
        )
        _check_start(self.start)


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
            len(self.hidden) > 0 and all(1 <= width <= MAX_COUNT for width in self.hidden),
            "hidden",
            list(self.hidden),
            f"it must name at least one width, each from 1 to {MAX_COUNT}",
        )
        _check_start(self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomSettings:
    """A network of the user's own.

    Attributes:
        network: `package.module:function`; called as `function(input_shape, classes, **arguments)`
            it returns a `torch.nn.Module` at the widths that growth is to reach.
        start: share of each growable width at which growth begins, rounded, at least one unit.
        arguments: further ones, by name.
    """

    network: str
    start: float = 0.25
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            _FUNCTION.fullmatch(self.network) is not None,
            "network",
            self.network,
            "it must be package.module:function, such as networks.vgg:vgg",
        )
        _check_start(self.start)


_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

NetworkSettings = ResNetSettings | MLPSettings | CustomSettings


def _check_start(start: float) -> None:
    above("start", start, 0)
    require(start <= 1, "start", start, "it must be at most 1 (the final width)")
