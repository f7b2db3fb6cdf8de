"""The picture of `benchmarks.rows`: accuracy over training and at its end, one colour a row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tinygrow.report.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    house_style,
    new_figure,
    to_png,
    to_svg,
)
from tinygrow.report.training_curves import short_count

_LOOKS = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"))


class Drawable(Protocol):
    """What of a run the picture needs."""

    @property
    def curve(self) -> Sequence[tuple[float, float]]: ...  # noqa: D102
    @property
    def test_accuracy(self) -> float: ...  # noqa: D102
    @property
    def parameters(self) -> int: ...  # noqa: D102


def draw_rows(
    rows: Mapping[str, Sequence[Drawable]], label: Callable[[str], str]
) -> tuple[str, bytes]:
    """Draw validation accuracy over image passes beside the test accuracy of each row.

    Args:
        rows: the runs of each row.
        label: from a row to its name.

    Returns:
        The picture as SVG and as PNG.
    """
    with house_style():
        figure = new_figure(11.0, 4.6)
        names: list[str] = []
        left, right = figure.subplots(1, 2, width_ratios=(5, 4))
        for i, (row, runs) in enumerate(rows.items()):
            look = _LOOKS[i % len(_LOOKS)]
            sizes = sorted({run.parameters for run in runs})
            names.append(f"{label(row)}\n{' to '.join(map(short_count, sizes))} parameters")
            _draw_curves(left, runs, look, f"{label(row)} (n = {len(runs)})")
            _draw_points(right, -i, runs, look)
        left.set_title("Validation accuracy (%)")
        left.set_xlabel("image passes in training; thin: single seeds")
        left.xaxis.set_major_locator(MaxNLocator(6))
        left.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short_count(v)))
        right.set_title("Test accuracy (%) of the finished model")
        right.set_xlabel("large: mean; small: single seeds\nbar: mean ± one standard deviation")
        right.set_yticks([-i for i in range(len(names))], names, color=INK)
        right.tick_params(axis="y", length=0)
        right.grid(axis="y", visible=False)
        right.margins(x=0.08, y=0.25)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
        title = "Validation accuracy over image passes, and test accuracy of each row"
        return to_svg(figure, "rows", title), to_png(figure)


def mean_curve(curves: Sequence[Sequence[tuple[float, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of curves, interpolated, over the range that all of them cover.

    Args:
        curves: points (x, y) of each, x ascending.
    """
    tables = [np.asarray(curve, dtype=float) for curve in curves]
    low = max(table[0, 0] for table in tables)
    high = min(table[-1, 0] for table in tables)
    x = np.unique(np.concatenate([table[:, 0] for table in tables]))
    x = x[(x >= low) & (x <= high)]
    return x, np.mean([np.interp(x, table[:, 0], table[:, 1]) for table in tables], axis=0)


def _draw_curves(
    ax: Axes, runs: Sequence[Drawable], look: tuple[str, str, str], label: str
) -> None:
    color, line, _ = look
    curves = [run.curve for run in runs if run.curve]
    if len(curves) > 1:
        for curve in curves:
            ax.plot(*zip(*curve, strict=True), color=color, linewidth=0.6, alpha=0.45)
    if curves:
        x, y = mean_curve(curves)
        ax.plot(x, y, color=color, linestyle=line, linewidth=2, label=label)


def _draw_points(
    ax: Axes, place: float, runs: Sequence[Drawable], look: tuple[str, str, str]
) -> None:
    color, _, marker = look
    accuracies = [run.test_accuracy for run in runs]
    if len(runs) > 1:
        deviation = float(np.std(accuracies, ddof=1))
        middle = float(np.mean(accuracies))
        ax.plot(
            [middle - deviation, middle + deviation],
            [place, place],
            color=color,
            linewidth=5,
            alpha=0.3,
        )
    ax.plot(accuracies, [place] * len(runs), marker, color=color, markersize=4, alpha=0.6)
    ax.plot([float(np.mean(accuracies))], [place], marker, color=color, markersize=9)
