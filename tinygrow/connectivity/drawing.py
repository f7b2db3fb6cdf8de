"""The drawing of a network's wiring: depth from left to right, layers in colour, skips dashed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, PathPatch
from matplotlib.path import Path as Curve

from tinygrow.connectivity.text import whole_told
from tinygrow.report.style import (
    BLUE,
    GRID,
    INK,
    MUTED,
    ORANGE,
    house_style,
    new_figure,
    to_png,
    to_svg,
)

_ROW = 22.0  # units of depth in a row
_MOST_ROWS = 12
_LANE = 0.9
_LABELS = 90  # digits that fit below a row
_CROWDED = 20  # nodes of a part whose skips are drawn thinner
_HIGHEST = 2.6  # of an arc

Part = Mapping[str, Any]


def draw(report: Mapping[str, Any], name: str = "connectivity") -> str:
    """Return the picture of a report's first output as an SVG file."""
    with house_style():
        return to_svg(_figure(report), name, f"Connectivity of {report['model']}")


def draw_png(report: Mapping[str, Any]) -> bytes:
    """Return the same as a PNG file."""
    with house_style():
        return to_png(_figure(report))


def _figure(report: Mapping[str, Any]) -> Any:
    output = report["outputs"][0]
    rows = _rows(output["drawing"])
    left_out = max(0, len(rows) - _MOST_ROWS)
    rows = rows[:_MOST_ROWS]
    heights = [_height(row) for row in rows] or [2.0]
    width = max((sum(p["width"] for p in row) for row in rows), default=1.0)
    figure = new_figure(min(10.0, 1.6 + 0.42 * max(width, 10)), 1.1 + 0.34 * sum(heights))
    axes = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights).ravel())
    start = 0
    for ax, row in zip(axes, rows, strict=False):
        start = _draw_row(ax, row, start, width)
    axes[-1].set_xlabel("depth: parameterised layers from the input")
    title = f"{report['model']}: {whole_told(output['whole'])}"
    if left_out:
        title += f" ({left_out} rows are not drawn)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, weight="bold")
    _legend(figure)
    return figure


def _legend(figure: Any) -> None:
    handles = [
        Line2D([], [], color=BLUE, linewidth=2.2, label="layer with parameters"),
        Line2D([], [], color=ORANGE, linewidth=1.3, linestyle="--", label="skip or pooling"),
        Line2D([], [], color=INK, marker="o", linestyle="", markersize=4, label="value"),
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=3)


def _rows(parts: Sequence[Part]) -> list[list[Part]]:
    """Break the drawing into rows between segments."""
    rows: list[list[Part]] = []
    used = 0.0
    for part in parts:
        if not rows or used + part["width"] > _ROW:
            rows.append([])
            used = 0.0
        rows[-1].append(part)
        used += part["width"]
    return rows


def _height(row: Sequence[Part]) -> float:
    """Return the lanes a row takes, with room for its arcs."""
    low, high = _extent(row)
    return high - low


def _extent(row: Sequence[Part]) -> tuple[float, float]:
    low, high = -0.7, 0.9
    for part in row:
        for curve in _bulges(part):
            low, high = min(low, curve - 0.35), max(high, curve + 0.35)
        lanes = [lane * _LANE for _, lane, _ in part["nodes"]]
        low, high = min(low, min(lanes) - 0.5), max(high, max(lanes) + 0.5)
        if part["times"] > 1:
            high = max(high, 1.6)
    return low, high


def _draw_row(ax: Axes, row: Sequence[Part], start: int, width: float) -> int:
    """Draw parts beside each other; return the depth at which the next row begins."""
    x, depth = 0.0, start
    ticks = [(x, depth)]
    for part in row:
        _draw_part(ax, part, x)
        if part["times"] == 1:
            ticks += [(x + at, depth + deep) for at, _, deep in part["nodes"]]
        x, depth = x + part["width"], depth + part["depth"] * part["times"]
    ticks.append((x, depth))
    labels = {deep: at for at, deep in reversed(ticks)}  # the first place of each depth
    shown: list[int] = []
    for deep in sorted(labels):
        room = (len(str(deep)) + 0.7) * width / _LABELS
        if not shown or labels[deep] - labels[shown[-1]] >= room:
            shown.append(deep)
    ax.set_xticks([labels[d] for d in shown], [str(d) for d in shown])
    ax.set_xlim(-0.5, width + 0.5)
    ax.set_ylim(*_extent(row))
    ax.set_yticks([])
    ax.grid(False)
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    return depth


def _draw_part(ax: Axes, part: Part, x: float) -> None:
    places = [(x + at, lane * _LANE) for at, lane, _ in part["nodes"]]
    for (source, target, layers), bulge in zip(part["edges"], _bulges(part), strict=True):
        (x0, y0), (x1, y1) = places[source], places[target]
        color, line, dash = (
            (BLUE, 2.2, "-") if layers else (ORANGE, 1.3 if len(places) < _CROWDED else 0.6, "--")
        )
        if y0 == y1 and bulge == y0:
            arrow = FancyArrowPatch(
                (x0, y0),
                (x1, y1),
                arrowstyle="-",
                color=color,
                linewidth=line,
                linestyle=dash,
                shrinkA=0,
                shrinkB=0,
            )
            ax.add_patch(arrow)
            continue
        # A quadratic curve reaches half as far as its control point.
        middle = ((x0 + x1) / 2, 2 * bulge - (y0 + y1) / 2)
        curve = Curve([(x0, y0), middle, (x1, y1)], [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3])
        ax.add_patch(
            PathPatch(curve, facecolor="none", edgecolor=color, linewidth=line, linestyle=dash)
        )
    ax.plot(*zip(*places, strict=True), "o", color=INK, markersize=3.5, zorder=3)
    if part["times"] > 1:
        ax.text(x + part["width"] / 2, 1.15, f"{part['times']} times", ha="center", color=MUTED)


def _bulges(part: Part) -> list[float]:
    """Return how far from the main path each edge's middle lies.

    Arcs go above; where one is in the way, below; several between two nodes fan out.
    """
    twins: Counter[tuple[int, int]] = Counter()
    arcs: dict[int, list[tuple[float, float]]] = {1: [], -1: []}
    found = []
    for source, target, _ in part["edges"]:
        (x0, lane0, _), (x1, lane1, _) = part["nodes"][source], part["nodes"][target]
        number = twins[source, target]
        twins[source, target] += 1
        straight = (lane0 + lane1) / 2 * _LANE
        passed = any(x0 < x < x1 and lane == lane0 for x, lane, _ in part["nodes"])
        if lane0 != lane1 or not (passed or number):
            found.append(straight)
            continue
        side = min(arcs, key=lambda s: (sum(x0 < b and a < x1 for a, b in arcs[s]), -s))
        arcs[side].append((x0, x1))
        found.append(straight + side * (min(0.55 + 0.16 * (x1 - x0), _HIGHEST) + 0.25 * number))
    return found
