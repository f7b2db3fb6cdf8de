"""Pictures of growth: widths over time, and the expressivity bottleneck before and after."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from tinygrow.report.history import ExtensionRow, History
from tinygrow.report.style import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    direct_labels,
    new_figure,
    panels,
    ramp,
)


def draw_widths(history: History) -> Figure | None:
    """Draw every growable width over the extensions, or nothing where none grew."""
    if not history.extensions:
        return None
    figure = new_figure(8.0, 4.2)
    draw_widths_on(figure.subplots(), history)
    return figure


def draw_widths_on(ax: Axes, history: History) -> None:
    """Draw a step line for every layer; those that end at one width share a label."""
    rows = history.growth
    times = [r.extension for r in rows]
    room = times[-1] + max(1, times[-1] // 40)
    noun, numbers = history.layers
    ends: dict[int, list[int]] = {}
    for i in range(len(numbers)):
        widths = [r.widths[i] for r in rows]
        # The last step would hide in the frame without a point behind it.
        ax.step(
            [*times, room],
            [*widths, widths[-1]],
            where="post",
            color=ramp(i, len(numbers)),
            linewidth=1.5,
        )
        ends.setdefault(widths[-1], []).append(i)
    ax.set_yscale("log", base=2)
    marks = sorted({*rows[0].widths, *rows[-1].widths})
    ax.yaxis.set_major_locator(FixedLocator(marks))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.set_xlim(0, room)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set_title("Width of every growing layer (neurons or channels)")
    alone = any(not r.sweep for r in rows[1:])
    ax.set_xlabel("extensions and trainings without one" if alone else "extensions")
    labels = [
        (
            float(width),
            (f"{noun}s " if len(group) > 1 else f"{noun} ")
            + ", ".join(str(numbers[i]) for i in group),
            INK,
        )
        for width, group in ends.items()
    ]
    direct_labels(ax, room, labels)


def draw_bottleneck(history: History) -> Figure | None:
    """Draw the bottleneck of every extension by depth, or nothing where none was measured."""
    rows = [r for r in history.extensions if not math.isnan(r.bottleneck_before)]
    depths = sorted({r.depth for r in rows if r.depth is not None})
    if not depths:
        return None
    figure, axes = panels(len(depths), "Expressivity bottleneck at every extension", "sweep")
    for ax, depth in zip(axes, depths, strict=True):
        _draw_depth(ax, [r for r in rows if r.depth == depth])
        ax.set_title(f"depth {depth}")
    figure.legend(
        handles=[
            Line2D([], [], color=MUTED, marker="o", mfc="none", ls="none", label="before"),
            Line2D([], [], color=ORANGE, marker="_", ls="none", ms=8, mew=1.8, label="promised"),
            Line2D([], [], color=BLUE, marker="o", ls="none", label="after"),
        ],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def _draw_depth(ax: Axes, rows: list[ExtensionRow]) -> None:
    sweeps = [r.sweep or r.extension for r in rows]
    before = [r.bottleneck_before for r in rows]
    after = [r.bottleneck_after for r in rows]
    promised = [r.bottleneck_predicted for r in rows]
    ax.vlines(sweeps, after, before, color=MUTED, linewidth=0.8)
    ax.plot(sweeps, before, "o", color=MUTED, mfc="none", ms=4)
    ax.plot(sweeps, promised, "_", color=ORANGE, ms=7, mew=1.6)
    ax.plot(sweeps, after, "o", color=BLUE, ms=3.6)
    finite = [v for v in (*before, *after, *promised) if v > 0]
    if finite and max(finite) > 20 * min(finite):
        ax.set_yscale("log")
        # Plain numbers: matplotlib's own labels of a logarithmic axis are formulas, which SVG text
        # shows as their source.
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_ylim(bottom=0)
    ax.set_xlim(0.4, max(sweeps) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
