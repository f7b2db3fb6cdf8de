"""Pictures of training: accuracy and loss over epochs, accuracy against parameters."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from tinygrow.report.history import EpochRow, ExtensionRow, History
from tinygrow.report.style import BLUE, GREEN, INK, MUTED, ORANGE, SHADE, new_figure

# Where one phase takes less than this share of the epochs, the time axis gives it this much room.
_LEAST_SHARE = 0.3


def draw_progress(history: History) -> Figure:
    """Draw accuracy above loss over the epochs of growth and fine-tuning."""
    figure = new_figure(8.0, 5.4)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    draw_accuracy(top, history)
    _draw_loss(bottom, history)
    top.set_xlabel("")
    top.tick_params(labelbottom=False)
    return figure


def draw_accuracy(ax: Axes, history: History) -> None:
    """Draw accuracy over epochs, the extensions marked along the lower edge."""
    train, validation = _series(history, "accuracy")
    _line(ax, *train, BLUE, "training images, while training")
    _line(ax, *validation, ORANGE, "validation images", marker=".")
    if finite := [v for v in (*train[1], *validation[1]) if not math.isnan(v)]:
        low, high = min(finite), max(finite)
        ax.set_ylim(low - 0.14 * max(high - low, 1), high + 0.13 * max(high - low, 1))
    ax.set_title("Accuracy (%)")
    _time_axis(ax, history)
    _name_phases(ax, history)
    _mark_extensions(ax, history)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0.06))


def _draw_loss(ax: Axes, history: History) -> None:
    train, validation = _series(history, "loss")
    _line(ax, *train, BLUE, "training images")
    _line(ax, *validation, ORANGE, "validation images", marker=".")
    finite = [v for v in (*train[1], *validation[1]) if v > 0]
    if finite and max(finite) > 8 * min(finite):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: ""))
    ax.set_title("Loss (cross-entropy)")
    _time_axis(ax, history)


def draw_size(history: History) -> Figure:
    """Draw validation accuracy against parameters."""
    figure = new_figure(8.0, 3.9)
    draw_accuracy_of_size(figure.subplots(), history)
    return figure


def draw_accuracy_of_size(ax: Axes, history: History) -> None:
    """Draw validation accuracy against parameters, the fine-tuned end as a star."""
    rows = [r for r in history.growth if not math.isnan(r.validation_accuracy)]
    sizes = [r.parameters for r in rows]
    accuracies = [r.validation_accuracy for r in rows]
    ax.plot(sizes, accuracies, color=BLUE, marker="o", markersize=3.2, label="during growth")
    final = [e for e in history.finetuning if not math.isnan(e.validation_accuracy)]
    if final and final[-1].epoch > 0:
        ax.plot(
            [history.growth[-1].parameters],
            [final[-1].validation_accuracy],
            color=ORANGE,
            marker="*",
            markersize=13,
            linestyle="none",
            label="after fine-tuning",
        )
    if sizes and max(sizes) > 1.02 * min(sizes):
        ax.margins(x=0.05, y=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short_count(v)))
    ax.set_title("Validation accuracy (%) against parameters")
    ax.set_xlabel("parameters")
    ax.legend(loc="best")


def short_count(value: float) -> str:
    """Return a count as an axis shows it: 950, 12.5k, 3.37M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:g}"


def _series(
    history: History, what: str
) -> tuple[tuple[list[float], list[float]], tuple[list[float], list[float]]]:
    offset = history.growth_epochs
    points: list[tuple[float, ExtensionRow | EpochRow]]
    points = [(r.epochs, r) for r in history.growth]
    points += [(offset + e.epoch, e) for e in history.finetuning if e.epoch > 0]
    times = [t for t, _ in points]
    train = [getattr(r, f"train_{what}") for _, r in points]
    validation = [getattr(r, f"validation_{what}") for _, r in points]
    return (times, train), (times, validation)


def _line(
    ax: Axes, x: Sequence[float], y: Sequence[float], color: str, label: str, marker: str = ""
) -> None:
    """Plot the points that exist; a series of a few points shows each of them."""
    kept = [(a, b) for a, b in zip(x, y, strict=True) if not math.isnan(b)]
    if not kept:
        return
    size = 4 if len(kept) <= 60 else 0
    ax.plot(*zip(*kept, strict=True), color=color, label=label, marker=marker, markersize=size)


def _time_axis(ax: Axes, history: History) -> None:
    """Set the axis of epochs: growth on a shaded ground, then fine-tuning."""
    border = history.growth_epochs
    end = border + (history.finetuning[-1].epoch if history.finetuning else 0)
    if end <= 0:
        ax.set_xlabel("epochs (no training)")
        return
    ax.axvspan(0, border, color=SHADE, zorder=0, linewidth=0)
    note = "epochs of training"
    if 0 < border < end:
        share = min(max(border / end, _LEAST_SHARE), 1 - _LEAST_SHARE)
        if abs(share - border / end) > 1e-9:
            _stretch(ax, border, end, share)
            note += " (the two phases are drawn at different scales)"
        ax.axvline(border, color=MUTED, linewidth=0.8)
        ticks = [*_ticks(0, border)[:-1], *_ticks(border, end)]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.set_xlim(-0.004 * end if border == 0 else -0.02 * border, end * 1.004)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.3g}" if v < 100 else f"{v:.0f}"))
    ax.set_xlabel(note)


def _name_phases(ax: Axes, history: History) -> None:
    if history.growth_epochs <= 0 or not any(e.epoch > 0 for e in history.finetuning):
        return
    for text, side, gap in (("growth", "right", -6), ("fine-tuning", "left", 6)):
        ax.annotate(
            text,
            (history.growth_epochs, 0.985),
            xycoords=ax.get_xaxis_transform(),
            xytext=(gap, 0),
            textcoords="offset points",
            ha=side,
            va="top",
            fontsize=8.5,
            color=MUTED,
        )


def _ticks(low: float, high: float) -> list[float]:
    inner = [
        float(t)
        for t in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
        if low + 0.1 * (high - low) < t < high - 0.1 * (high - low)
    ]
    return [low, *inner, high]


def _stretch(ax: Axes, border: float, end: float, share: float) -> None:
    def forward(x: np.ndarray) -> np.ndarray:
        early = x / border * share
        return np.where(x < border, early, share + (x - border) / (end - border) * (1 - share))

    def inverse(y: np.ndarray) -> np.ndarray:
        early = y / share * border
        return np.where(y < share, early, border + (y - share) / (1 - share) * (end - border))

    ax.set_xscale("function", functions=(forward, inverse))


def _mark_extensions(ax: Axes, history: History) -> None:
    """Mark the moment of every extension, which lies before the training of its row."""
    if not history.extensions:
        return
    moments = []
    sweeps: dict[int | None, float] = {}
    for before, row in zip(history.growth, history.growth[1:], strict=False):
        if row.depth is not None and row.width_after > row.width_before:
            moments.append(before.epochs)
            sweeps.setdefault(row.sweep, before.epochs)
    place = ax.get_xaxis_transform()
    crowded = len(moments) > 64
    if not history.in_sweeps:
        label = "an extension"
        ax.vlines(moments, 0, 0.035, transform=place, color=GREEN, linewidth=0.8, label=label)
        return
    if not crowded:
        ax.vlines(moments, 0, 0.035, transform=place, color=GREEN, linewidth=0.8)
    ax.vlines(
        list(sweeps.values()),
        0,
        0.075,
        transform=place,
        color=INK,
        linewidth=1.0,
        label="a sweep of extensions" if crowded else "an extension (long: a new sweep)",
    )
