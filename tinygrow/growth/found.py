"""What a search for growable widths has found, as a value and in print."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from tinygrow.growth.sites import Site


@dataclass(frozen=True, slots=True)
class Refusal:
    """A layer whose width may not grow.

    Attributes:
        layer: its module path; empty where it is all of the network.
        why: the reason, in words.
    """

    layer: str
    why: str


@dataclass(frozen=True, slots=True)
class Discovery(Sequence[Site]):
    """What was found in a network; a sequence of its sites, and a table in print.

    Attributes:
        sites: that may grow, in the order in which the network runs.
        widths: of the sites.
        refused: all other layers, each with the reason.
    """

    sites: tuple[Site, ...]
    widths: tuple[int, ...]
    refused: tuple[Refusal, ...]

    @overload
    def __getitem__(self, index: int) -> Site: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Site, ...]: ...
    def __getitem__(self, index: int | slice) -> Site | tuple[Site, ...]:
        """Return a site."""
        return self.sites[index]

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.sites)

    def __str__(self) -> str:
        """Return two tables: what may grow, and what may not."""
        found = [
            (str(site.depth), str(width), site.first, f"-> {site.second}", site.note)
            for site, width in zip(self.sites, self.widths, strict=True)
        ]
        left = [(refusal.layer or "the network", refusal.why) for refusal in self.refused]
        lines = [f"{len(found)} widths may grow"]
        lines += _table([("depth", "width", "written by", "read by", "note"), *found], found)
        lines += [f"{len(left)} may not", *_table([("layer", "why"), *left], left)]
        return "\n".join(lines)


def _table(rows: list[tuple[str, ...]], entries: Sequence[object]) -> Iterator[str]:
    """Yield the rows in columns, or nothing where there is no entry."""
    if not entries:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(("", *(t.ljust(w) for t, w in zip(row, widths, strict=True)))).rstrip()
