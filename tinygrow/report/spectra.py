"""Pictures of single extensions: singular values, line searches, amplitudes."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tinygrow.report.history import ExtensionDetail, History
from tinygrow.report.style import BLUE, INK, MUTED, ORANGE, new_figure, panels, ramp, superscript

_MOST_POINTS = 120
_MOST_PANELS = 12
# Singular values below this share of the largest are rounding noise and would stretch the axis.
_NOISE = 1e-9


def draw_spectra(history: History) -> Figure | None:
    """Draw the singular values of the first, a middle and the last visit of every depth."""
    details = [d for d in history.details if _positive(d.singular_values)]
    depths = sorted({d.depth for d in details})[:_MOST_PANELS]
    if not depths:
        return None
    figure, axes = panels(
        len(depths), "Singular values of the directions found", "rank of the direction"
    )
    for ax, depth in zip(axes, depths, strict=True):
        draw_spectra_on(ax, [d for d in details if d.depth == depth])
        ax.set_title(f"depth {depth}")
    figure.legend(
        handles=[
            *(Line2D([], [], color=ramp(i, 3), label=f"{w} visit") for i, w in enumerate(_VISITS)),
            Line2D([], [], color=MUTED, marker="o", ls="none", label="kept: a new neuron"),
            Line2D([], [], color=MUTED, lw=1.0, label="dropped"),
        ],
        loc="outside lower center",
        ncols=5,
        columnspacing=1.2,
    )
    return figure


_VISITS = ("first", "middle", "last")


def draw_spectra_on(ax: Axes, visits: Sequence[ExtensionDetail]) -> None:
    """Draw up to three spectra of one depth; dots mark the values that became neurons."""
    chosen = {0: 0, 2: len(visits) - 1}
    if len(visits) > 2:
        chosen[1] = len(visits) // 2
    if len(visits) == 1:
        chosen = {0: 0}
    for place in sorted(chosen):
        visit = visits[chosen[place]]
        values = _positive(visit.singular_values)
        ranks = _thin(len(values), visit.kept)
        color = ramp(place, 3)
        ax.plot([r + 1 for r in ranks], [values[r] for r in ranks], color=color, lw=1.0)
        kept = [r for r in ranks if r < visit.kept]
        ax.plot([r + 1 for r in kept], [values[r] for r in kept], "o", color=color, ms=3.2)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(LogLocator(10, numticks=6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_major_locator(LogLocator(10, numticks=5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"10{superscript(_exponent(v, 10))}"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(NullFormatter())


def draw_search(history: History) -> Figure | None:
    """Draw the line-search curves and the amplitudes they led to, or nothing without a search."""
    # A fixed amplitude leaves two losses, without and with the new neurons.
    curves = [d for d in history.details if len(d.losses) > 2 and d.losses[0] != 0]
    if not curves and not any(r.rejected == 1 for r in history.extensions):
        return None
    figure = new_figure(8.0, 3.7)
    left, right = figure.subplots(1, 2)
    _draw_curves(left, curves)
    _draw_amplitudes(right, history)
    return figure


def _draw_curves(ax: Axes, curves: Sequence[ExtensionDetail]) -> None:
    ax.set_title("Line searches: change of the loss (%)")
    ax.set_xlabel("amplitude")
    if not curves:
        ax.text(0.5, 0.5, "no curve was recorded", transform=ax.transAxes, ha="center")
        return
    lowest, smallest = 0.0, math.inf
    for i, curve in enumerate(curves):
        base = curve.losses[0]
        points = [
            (a, 100 * (loss - base) / abs(base))
            for a, loss in zip(curve.amplitudes, curve.losses, strict=False)
            if a > 0
        ]
        ax.plot(*zip(*points, strict=True), color=ramp(i, len(curves)), lw=0.9, alpha=0.8)
        taken = [p for p in points if p[0] == curve.chosen]
        if taken:
            ax.plot(*zip(*taken, strict=True), "o", color=ramp(i, len(curves)), ms=3.4)
        lowest = min([lowest, *(gain for _, gain in points)])
        smallest = min([smallest, *(a for a, gain in points if gain < 0.2 * lowest)])
    ax.axhline(0, color=INK, lw=0.8)
    if lowest < 0:
        # A loss that explodes past the minimum, or 20 steps of nothing, would flatten the rest.
        ax.set_ylim(1.25 * lowest, -1.25 * lowest)
        ax.set_xlim(smallest / 16, max(a for c in curves for a in c.amplitudes) * 1.3)
    _amplitude_axis(ax, "x")
    ax.text(
        0.03,
        0.97,
        "dot: amplitude taken\ncolour: early (dark) to late (light)",
        transform=ax.transAxes,
        fontsize=7.5,
        color=MUTED,
        va="top",
    )


def _draw_amplitudes(ax: Axes, history: History) -> None:
    rows = [r for r in history.extensions if not math.isnan(r.amplitude)]
    taken = [r for r in rows if not r.rejected and r.amplitude > 0]
    refused = [r for r in rows if r.rejected]
    ax.set_title("Amplitude of the new neurons")
    ax.set_xlabel("extension")
    if taken:
        ax.plot(
            [r.extension for r in taken],
            [r.amplitude for r in taken],
            "o",
            color=BLUE,
            ms=3.4,
            label="taken",
        )
        _amplitude_axis(ax, "y")
    if refused:
        ax.plot(
            [r.extension for r in refused],
            [0.03] * len(refused),
            "x",
            color=ORANGE,
            ms=5,
            transform=ax.get_xaxis_transform(),
            label="no gain found: added with zero weights",
        )
    if refused:
        ax.figure.legend(loc="outside lower right", ncols=2)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _amplitude_axis(ax: Axes, which: str) -> None:
    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log", base=2)
    low, high = axis.get_view_interval()
    if high < low * 16:
        middle = math.sqrt(low * high)
        (ax.set_xlim if which == "x" else ax.set_ylim)(middle / 6, middle * 6)
    axis.set_major_locator(LogLocator(2, numticks=8))
    axis.set_major_formatter(FuncFormatter(_power_of_two))
    axis.set_minor_formatter(NullFormatter())


def _power_of_two(value: float, _: object = None) -> str:
    if value >= 1 / 64:
        return f"{value:g}" if value >= 1 else f"1/{1 / value:g}"
    return f"2{superscript(_exponent(value, 2))}"


def _exponent(value: float, base: int) -> int:
    return round(math.log(value, base)) if value > 0 else 0


def _positive(values: Sequence[float]) -> list[float]:
    largest = max(values, default=0.0)
    return [v for v in values if v > 0 and v >= _NOISE * largest]


def _thin(count: int, kept: int) -> list[int]:
    """Return at most about `_MOST_POINTS` ranks, evenly spread on a logarithmic axis."""
    if count <= _MOST_POINTS:
        return list(range(count))
    spread = np.unique(np.geomspace(1, count, _MOST_POINTS).round().astype(int)) - 1
    return sorted({*range(min(kept, count)), *(int(r) for r in spread)})
