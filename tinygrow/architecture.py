"""`Architecture`: plain data that rebuilds any network of the factory, grown or not."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from tinygrow.errors import TinygrowError
from tinygrow.settings.network import CustomSettings, MLPSettings, NetworkSettings

KINDS = ("resnet", "mlp", "custom")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Everything that determines a network but its weights.

    Attributes:
        kind: `resnet`, `mlp` or `custom` (a network of the user's).
        input_shape: channels, height, width of an image.
        classes: number of logits.
        stage_widths: channels of each stage's residual stream (`resnet`; else empty).
        blocks: residual blocks of each stage (`resnet`; else empty).
        middle_widths: the widths that growth changes, in order of depth: of each block's first
            convolution, of each hidden layer, or whatever is found in the network.
        network: `package.module:function` that makes the network (`custom`; else empty).
        arguments: plain data that the function gets besides shape and classes (`custom`).
        compressed: what compression changed of the structure (`tinygrow.networks.compressed`), of
            a network that is folded; the widths above are those before. Empty: not compressed.
    """

    kind: Literal["resnet", "mlp", "custom"]
    input_shape: tuple[int, int, int]
    classes: int
    stage_widths: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    middle_widths: tuple[int, ...] = ()
    network: str = ""
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    compressed: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TinygrowError(
                f"architecture kind is {self.kind!r}; it must be one of {', '.join(KINDS)}"
            )
        if self.classes < 2:
            raise TinygrowError(f"{self.classes} classes; a classifier needs at least 2")
        if len(self.input_shape) != 3:
            raise TinygrowError(
                f"input shape is {self.input_shape}; it must be channels, height, width"
            )
        if min((*self.input_shape, *self.middle_widths, *self.stage_widths)) < 1:
            raise TinygrowError(f"{self}: every width and size must be at least 1")
        if self.kind == "resnet":
            if len(self.blocks) != len(self.stage_widths) or min(self.blocks, default=0) < 1:
                raise TinygrowError(
                    f"blocks {self.blocks} for stage widths {self.stage_widths}; give every stage"
                    " at least one block"
                )
            shrink = 2 ** (len(self.stage_widths) - 1)
            if min(self.input_shape[1:]) < shrink:
                raise TinygrowError(
                    f"images of {self.input_shape[1]}x{self.input_shape[2]} are too small for"
                    f" {len(self.stage_widths)} stages; resize them to at least {shrink}x{shrink}"
                    " or take fewer stages"
                )
            if sum(self.blocks) != len(self.middle_widths):
                raise TinygrowError(
                    f"{len(self.middle_widths)} middle widths for {sum(self.blocks)} blocks;"
                    " give one a block"
                )

    def with_middle_width(self, index: int, width: int) -> Self:
        """Return the architecture with one growable width changed."""
        widths = list(self.middle_widths)
        widths[index] = width
        return replace(self, middle_widths=tuple(widths))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        value = asdict(self)
        if self.kind != "custom":
            del value["network"], value["arguments"]
        if not self.compressed:
            del value["compressed"]
        return value

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Rebuild from `to_dict`'s value, as it comes out of JSON (lists for tuples)."""
        try:
            plain: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in value.items()
            }
            return cls(**plain)
        except (TypeError, AttributeError) as error:
            raise TinygrowError(
                f"not an architecture: {json.dumps(value)[:200]} ({error}); was the file written"
                " by another version of tinygrow?"
            ) from error


def final_architecture(
    settings: NetworkSettings, input_shape: tuple[int, int, int], classes: int
) -> Architecture:
    """Return the network at full width.

    Args:
        settings: which network.
        input_shape: channels, height, width.
        classes: number of logits.

    Raises:
        TinygrowError: a network of the user's cannot be made, or has nothing that can grow.
    """
    if isinstance(settings, CustomSettings):
        from tinygrow.networks.custom import discover  # plain data alone needs no torch

        custom = Architecture(
            kind="custom",
            input_shape=input_shape,
            classes=classes,
            network=settings.network,
            arguments=settings.arguments,
        )
        return replace(custom, middle_widths=discover(custom).widths)
    if isinstance(settings, MLPSettings):
        return Architecture(
            kind="mlp", input_shape=input_shape, classes=classes, middle_widths=settings.hidden
        )
    stage_widths = tuple(settings.base_width * 2**i for i in range(len(settings.blocks)))
    middle = tuple(w for w, n in zip(stage_widths, settings.blocks, strict=True) for _ in range(n))
    return Architecture(
        kind="resnet",
        input_shape=input_shape,
        classes=classes,
        stage_widths=stage_widths,
        blocks=settings.blocks,
        middle_widths=middle,
    )


def seed_architecture(settings: NetworkSettings, final: Architecture) -> Architecture:
    """Return the network growth begins with: every growable width at `start` of its final value.

    Widths of a user's network are rounded, to at least 1.

    Raises:
        TinygrowError: a width times `start` is not a whole number.
    """
    if isinstance(settings, CustomSettings):
        rounded = (max(1, round(width * settings.start)) for width in final.middle_widths)
        return replace(final, middle_widths=tuple(rounded))
    widths = []
    for width in final.middle_widths:
        exact = width * settings.start
        if abs(exact - round(exact)) > 1e-6 or round(exact) < 1:
            raise TinygrowError(
                f"start is {settings.start:g}, and {settings.start:g} of a final width of {width}"
                f" is {exact:g}; choose a start (such as {_whole_starts(final)}) that makes every"
                " width whole"
            )
        widths.append(round(exact))
    return replace(final, middle_widths=tuple(widths))


def _whole_starts(final: Architecture) -> str:
    starts = [1 / d for d in (2, 4, 8, 16, 32, 64) if all(w % d == 0 for w in final.middle_widths)]
    return ", ".join(f"{s:g}" for s in starts) or "1"
