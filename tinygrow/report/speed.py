"""The picture of a benchmark: latency of one call, images per second over batch sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tinygrow.report.style import (
    BLUE,
    GREEN,
    MUTED,
    ORANGE,
    PURPLE,
    direct_labels,
    house_style,
    new_figure,
    to_svg,
)

_PRODUCTS = {"fp32": BLUE, "fp16": PURPLE, "int8": GREEN}
_LINES = ("-", "--", ":", "-.")

Cells = Sequence[Mapping[str, Any]]


def speed_svg(cells: Cells, model: str) -> str:
    """Return the picture as an SVG file; the same figures give the same text.

    Args:
        cells: as the benchmark's JSON file has them.
        model: its name.
    """
    with house_style():
        return to_svg(draw_speed(cells), "benchmark", f"Speed of {model}")


def draw_speed(cells: Cells) -> Figure:
    """Draw latency at the smallest batch (left) and images per second (right).

    Args:
        cells: with figures or without; those without are left out.
    """
    cells = [cell for cell in cells if cell["runs"]]
    names = list(dict.fromkeys(_name(cell) for cell in cells))
    figure = new_figure(10.0, 1.6 + 0.34 * max(len(names), 5))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.25))
    _latency(left, cells, names)
    _throughput(right, cells, names)
    return figure


def _latency(ax: Axes, cells: Cells, names: Sequence[str]) -> None:
    batch = min(cell["batch"] for cell in cells)
    for place, name in enumerate(names):
        for cell in cells:
            if cell["batch"] == batch and _name(cell) == name:
                color, _ = _look(cell, cells)
                ax.plot((cell["p50_ms"], cell["p99_ms"]), (place, place), color=color, lw=1.2)
                ax.plot(cell["p50_ms"], place, "o", color=color, ms=5)
                ax.plot(cell["p90_ms"], place, "|", color=color, ms=8)
                ax.plot(cell["p99_ms"], place, "|", color=color, ms=8)
    ax.set_yticks(range(len(names)), names, color=MUTED)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xscale("log")
    _plain_numbers(ax.xaxis)
    ax.set_xlabel("ms: median (dot), 90th and 99th percentile (marks)")
    ax.set_title(f"Latency, {batch} image{'s' if batch > 1 else ''} a call")


def _throughput(ax: Axes, cells: Cells, names: Sequence[str]) -> None:
    batches = sorted({cell["batch"] for cell in cells})
    ends = []
    for name in names:
        own = sorted((c for c in cells if _name(c) == name), key=lambda c: c["batch"])
        color, line = _look(own[0], cells)
        rates = [c["images_per_second"] for c in own]
        ax.plot([c["batch"] for c in own], rates, line, color=color, marker="o", ms=3.5)
        if own[-1]["batch"] == batches[-1]:
            ends.append((rates[-1], name, color))
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    _plain_numbers(ax.yaxis)
    ax.set_xticks(batches, [str(batch) for batch in batches])
    ax.set_xlabel("images a call")
    ax.set_title("Images a second")
    ax.set_xlim(right=batches[-1] * 1.02)
    direct_labels(ax, batches[-1], ends)


def _plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 of each power of ten, without exponents."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def _name(cell: Mapping[str, Any]) -> str:
    engine = "PyTorch " if cell["engine"] == "pytorch" else ""
    where = "" if cell["device"] == "cpu" else f" ({cell['device']})"
    return f"{engine}{cell['variant']}{where}"


def _look(cell: Mapping[str, Any], cells: Cells) -> tuple[str, str]:
    """Return colour and line: products have colours of their own, PyTorch lines of its own."""
    if cell["engine"] == "pytorch":
        variants = list(dict.fromkeys(c["variant"] for c in cells if c["engine"] == "pytorch"))
        return ORANGE, _LINES[variants.index(cell["variant"]) % len(_LINES)]
    return _PRODUCTS.get(cell["variant"], MUTED), "-" if cell["device"] == "cpu" else "--"
