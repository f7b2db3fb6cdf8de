"""One look for every picture: colours that the colour-blind tell apart, deterministic files."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

PAPER = "#ffffff"
INK = "#1f2328"
MUTED = "#656d77"
GRID = "#dfe4ea"
SHADE = "#f1f4f8"
# Okabe and Ito's palette, told apart with every common kind of colour blindness.
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
PURPLE = "#aa4499"

_PIXELS_A_POINT = 1.65

# An ordered scale of even lightness steps, cut where it would vanish on the paper.
_STEPS = 12
RAMP = tuple(to_hex(mpl.colormaps["plasma"](0.76 * i / (_STEPS - 1))) for i in range(_STEPS))
_DARK_RAMP = tuple(
    to_hex(mpl.colormaps["plasma"](0.28 + 0.70 * i / (_STEPS - 1))) for i in range(_STEPS)
)

# What each colour becomes where the reader's screen is dark.
DARK = {
    PAPER: "#0f141a",
    INK: "#e6edf3",
    MUTED: "#9aa4af",
    GRID: "#2b333d",
    SHADE: "#171e26",
    BLUE: "#56b4e9",
    ORANGE: "#ff8c42",
    GREEN: "#2cc295",
    PURPLE: "#dd8acb",
    **dict(zip(RAMP, _DARK_RAMP, strict=True)),
}

# matplotlib's stubs allow its own keys alone, which differ between its versions.
_RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.color": MUTED,
    "ytick.labelsize": 8,
    "ytick.major.size": 3,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and save with the house's settings; the caller's own come back at the end."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def new_figure(width: float = 8.0, height: float = 4.5) -> Figure:
    """Return an empty figure (inches) that lays itself out."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def ramp(position: int, count: int) -> str:
    """Return the colour of item `position` of `count` ordered ones."""
    return RAMP[round((_STEPS - 1) * position / max(count - 1, 1))]


def grid_shape(count: int, most_columns: int = 4) -> tuple[int, int]:
    """Return rows and columns for `count` small panels."""
    columns = min(count, most_columns)
    if count > most_columns and count % most_columns:
        columns = min(range(2, most_columns + 1), key=lambda c: (-count % c, -c))
    return math.ceil(count / columns), columns


def direct_labels(
    ax: Axes, x: float, labels: Sequence[tuple[float, str, str]], gap: float = 11.0
) -> None:
    """Write labels right of `x`, each beside its value and none over another.

    Args:
        ax: with its limits and scales settled.
        x: in data units.
        labels: value on the y axis, text, colour.
        gap: least distance of two lines, in points.
    """
    scale = 72 / ax.figure.dpi
    ordered = sorted(labels, key=lambda item: item[0])
    places = [float(ax.transData.transform((x, y))[1]) * scale for y, _, _ in ordered]
    wanted = list(places)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    shift = (sum(places) - sum(wanted)) / max(len(places), 1)
    for place, want, (y, text, color) in zip(places, wanted, ordered, strict=True):
        ax.annotate(
            text,
            (x, y),
            xytext=(6, place - want - shift),
            textcoords="offset points",
            color=color,
            fontsize=8,
            va="center",
            annotation_clip=False,
        )


def panels(count: int, title: str, xlabel: str) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` small panels under one title, each column with its x label."""
    lines, columns = grid_shape(count)
    figure = new_figure(max(2.1 * columns + 0.4, 5.6), 2.0 * lines + 0.9)
    axes = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for ax in axes[count:]:
        ax.set_visible(False)
    for ax in axes[max(count - columns, 0) : count]:
        ax.set_xlabel(xlabel)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, weight="bold")
    return figure, axes[:count]


def superscript(exponent: int) -> str:
    """Return an exponent in raised digits, which need no mathematics mode."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def to_svg(figure: Figure, name: str, title: str) -> str:
    """Return the figure as an SVG file: the same figure gives the same text.

    Args:
        figure: drawn within `house_style`.
        name: prefix of every id, so that several pictures can share one page.
        title: what a screen reader says.
    """
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(
            buffer,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue().decode()
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    return re.sub(r"(<svg [^>]*>)", rf"\1\n <title>{_escape(title)}</title>", text, count=1)


def to_png(figure: Figure, dpi: int = 144) -> bytes:
    """Return the figure as a PNG file without a date or a program's name."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def inline_svg(svg: str) -> str:
    """Return an SVG file's element for a page, its colours under the page's control.

    Each colour becomes a CSS variable with the colour itself as its fallback; `dark_rules` gives
    the variables their values on a dark screen.
    """
    element = svg[svg.index("<svg ") :]
    element = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", element)
    element = re.sub(r'(<svg [^>]*?)\swidth="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg [^>]*?)\sheight="[^"]*"', r"\1", element, count=1)
    element = element.replace("xlink:href=", "href=")
    # Pictures of different widths keep one size of letters.
    points = float(element.split('viewBox="0 0 ', 1)[1].split(" ", 1)[0])
    element = element.replace(
        "<svg ", f'<svg style="max-width: {points * _PIXELS_A_POINT:.0f}px" ', 1
    )
    return re.sub(
        r"#[0-9a-f]{6}\b",
        lambda m: f"var(--c{m[0][1:]}, {m[0]})" if m[0] in DARK else m[0],
        element,
    )


def dark_rules() -> str:
    """Return the CSS variables of `inline_svg` for a dark screen."""
    return " ".join(f"--c{light[1:]}: {dark};" for light, dark in DARK.items())


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
