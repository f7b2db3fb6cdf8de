"""A network's values and what each is made from, as any reader of networks gives them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal[
    "source", "layer", "add", "concat", "product", "attention", "norm", "identity", "slice", "other"
]


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that hangs on the network's input.

    Attributes:
        name: as the network's own code or file has it; of a layer, its path.
        inputs: numbers of the values that it is made from; one that is read twice is there twice.
        depth: parameterised operations between those and this: 1 for a layer, 0 for most others.
        kind: `add` sums its inputs and `concat` lines them up; `attention` is a matrix product of
            two of them, and `product` whatever else has several, as gates have; `identity` passes
            numbers on as they are, and `slice` some of them.
        shape: without the batch; empty where it is not known.
    """

    name: str
    inputs: tuple[int, ...]
    depth: int = 0
    kind: Kind = "other"
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What a reader gives.

    Attributes:
        values: each behind those that it is made from; the first is the input, or all inputs.
        outputs: name and value of each output.
        idle: layers of the network that are never called.
        origin: who read it.
        parameters: numbers that training may change; of a file, the stored ones.
        norms_known: whether normalisation would be seen; in exported files it is folded away.
    """

    values: tuple[Value, ...]
    outputs: tuple[tuple[str, int], ...]
    idle: tuple[str, ...] = ()
    origin: str = ""
    parameters: int = 0
    norms_known: bool = True


@dataclass(slots=True)
class Builder:
    """Collects values in order."""

    values: list[Value] = field(default_factory=list)

    def add(self, value: Value) -> int:
        """Append a value and return its number."""
        self.values.append(value)
        return len(self.values) - 1


def simplified(values: Sequence[Value], *, every_merge: bool = False) -> tuple[Value, ...]:
    """Return the values with every parameter-free function of one value as a single edge.

    x * sigmoid(x) is one function of x, whether a network calls it SiLU or an exporter writes it
    out in two operators; so is whatever else combines values that hang on one value alone, with no
    layer in between, and slices that are put together again, as a shift is written. Other sums and
    concatenations of such branches stay two paths, as theory has them.

    Args:
        values: of a `Graph`.
        every_merge: take sums and concatenations for such functions as well, so that what is left
            are the ways through layers.
    """
    result: list[Value] = []
    longest: list[int] = []
    dominator: list[int] = []  # the nearest value that all paths to this one go through
    for number, value in enumerate(values):
        if not value.inputs:
            dominator.append(number)
            longest.append(0)
            result.append(value)
            continue
        common = value.inputs[0]
        for other in value.inputs[1:]:
            common = _meet(dominator, common, other)
        deepest = value.depth + max(longest[i] for i in value.inputs)
        merges = len(value.inputs) > 1 and (
            every_merge
            or value.kind in ("product", "attention")
            or (value.kind == "concat" and all(values[i].kind == "slice" for i in value.inputs))
        )
        if merges and deepest == longest[common]:
            kind: Kind = "attention" if value.kind == "attention" else "other"
            value = replace(value, inputs=(common,), kind=kind)
        dominator.append(common)
        longest.append(deepest)
        result.append(value)
    return tuple(result)


def _meet(dominator: Sequence[int], one: int, other: int) -> int:
    """Return the nearest common dominator of two values."""
    while one != other:
        if one > other:
            one = dominator[one]
        else:
            other = dominator[other]
    return one
