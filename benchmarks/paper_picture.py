"""The pictures of `benchmarks.paper`: accuracy over epochs, time and multiply-adds.

In the shape of the paper's figures 5 and 8: a panel for each start and time between extensions, a
line for each method, and the full width from scratch in every panel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from benchmarks.paper_cells import SCRATCH, Cell, Point
from benchmarks.paper_table import by_design, label, share
from tinygrow.report.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    house_style,
    new_figure,
    to_png,
    to_svg,
)

_LOOKS = {
    "tiny": (BLUE, "-", "o"),
    "gradmax": (ORANGE, "--", "s"),
    "random": (GREEN, "-.", "^"),
    SCRATCH: (MUTED, ":", "*"),
}
_OTHER = (PURPLE, (0, (6, 1, 1, 1)), "D")
_UNITS = ((1e18, "10¹⁸"), (1e15, "10¹⁵"), (1e12, "10¹²"), (1e9, "10⁹"), (1e6, "10⁶"), (1, ""))


@dataclass(frozen=True, slots=True)
class Axis:
    """A horizontal axis.

    Attributes:
        name: of the picture's file.
        title: of the picture.
        words: at the axis, with a place for the unit.
        of: a point's place on it.
        units: from the largest to the smallest.
    """

    name: str
    title: str
    words: str
    of: Callable[[Point], float]
    units: tuple[tuple[float, str], ...] = ((1.0, ""),)


AXES = (
    Axis("epochs", "over epochs of training", "epochs of training{}", lambda p: p.epochs),
    Axis(
        "time",
        "over time",
        "{} of growth and training, evaluation left out",
        lambda p: p.seconds,
        ((7200.0, "hours"), (120.0, "minutes"), (1.0, "seconds")),
    ),
    Axis(
        "cost",
        "over training cost",
        "{} multiply-adds of training and of growth itself",
        lambda p: p.multiply_adds,
        _UNITS,
    ),
)


def draw(cells: Sequence[Cell], axis: Axis, title: str) -> tuple[str, bytes]:
    """Draw the cells of one setting.

    Args:
        cells: at least one.
        axis: what runs from left to right.
        title: says which images and network.

    Returns:
        The picture as SVG and as PNG.
    """
    columns = sorted(
        {c.design.column for c in cells if c.design.method != SCRATCH},
        key=lambda column: (-column[0], column[1]),
    )
    columns = columns or [(1.0, 0.0)]
    across = min(2, len(columns))
    down = -(-len(columns) // across)
    with house_style():
        figure = new_figure(4.6 * across + 0.6, 3.3 * down + 1.3)
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
        scale, unit = _unit(axis, cells)
        for ax, column in zip(grid, columns, strict=False):
            grown = [c for c in cells if c.design.column == column and c.design.method != SCRATCH]
            _panel(ax, grown, axis, scale)
            _panel(ax, [c for c in cells if c.design.method == SCRATCH], axis, scale)
            start, delta = column
            if grown:
                ax.set_title(f"from {share(start)} of the inner widths, Δt = {delta:g}")
        _finish(figure, grid, len(columns), across, axis.words.format(unit).strip())
        figure.suptitle(
            f"Validation accuracy (%) {axis.title}\n{title}",
            x=0.01,
            ha="left",
            fontsize=10,
            weight="bold",
        )
        words = f"Validation accuracy {axis.title}, {title}"
        return to_svg(figure, f"paper-{axis.name}", words), to_png(figure)


def _unit(axis: Axis, cells: Sequence[Cell]) -> tuple[float, str]:
    """Return what values are divided by, and its name: 7,200 s and more are hours."""
    places = [axis.of(point) for cell in cells for point in cell.curve]
    largest = max((place for place in places if place == place), default=0.0)
    least, unit = next((pair for pair in axis.units if largest >= pair[0]), axis.units[-1])
    return {"hours": 3600.0, "minutes": 60.0}.get(unit, least), unit


def _finish(figure: Figure, grid: Sequence[Axes], panels: int, across: int, words: str) -> None:
    for ax in grid[panels:]:
        ax.set_visible(False)
    for ax in grid[max(0, panels - across) : panels]:
        ax.set_xlabel(words)
        ax.tick_params(labelbottom=True)
    for ax in grid[:panels]:
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    found = {}
    for ax in grid[:panels]:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(text, handle)
    figure.legend(found.values(), found.keys(), loc="outside lower left", ncols=2 * across)


def _panel(ax: Axes, cells: Sequence[Cell], axis: Axis, scale: float) -> None:
    for design, group in by_design(cells).items():
        color, line, marker = _LOOKS.get(design.method, _OTHER)
        lines = [_line(cell, axis, scale) for cell in group]
        lines = [points for points in lines if not np.isnan(points).any()]
        if not lines:
            continue
        # Cells of one design have the same looks, unless one of them was trained on.
        common = min(len(points) for points in lines)
        stack = np.stack([points[:common] for points in lines])
        x, y = stack.mean(axis=0).T
        name = f"{label(design.method)} (n = {len(lines)})"
        if len(lines) > 1:
            for points in lines:
                ax.plot(*points.T, color=color, linewidth=0.6, alpha=0.4)
            low, high = stack[:, :, 1].min(axis=0), stack[:, :, 1].max(axis=0)
            ax.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
        ax.plot(x, y, color=color, linestyle=line, linewidth=1.8, label=name)
        _mark_end_of_growth(ax, group[0], x, y, color, marker)


def _line(cell: Cell, axis: Axis, scale: float) -> np.ndarray:
    return np.array([(axis.of(p) / scale, p.accuracy) for p in cell.curve], dtype=float)


def _mark_end_of_growth(
    ax: Axes, cell: Cell, x: np.ndarray, y: np.ndarray, color: str, marker: str
) -> None:
    if cell.design.method == SCRATCH or not 0 < cell.grown_at < len(x):
        return
    at = cell.grown_at
    ax.plot(
        [x[at]],
        [y[at]],
        marker,
        color=color,
        markersize=7,
        markeredgecolor=INK,
        markeredgewidth=0.8,
        zorder=5,
    )
