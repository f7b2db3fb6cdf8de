"""All pictures of one model, each with the line that says how to read it."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from tinygrow.report.growth_curves import draw_bottleneck, draw_widths, draw_widths_on
from tinygrow.report.history import History
from tinygrow.report.spectra import draw_search, draw_spectra
from tinygrow.report.style import MUTED, house_style, new_figure, to_png, to_svg
from tinygrow.report.training_curves import (
    draw_accuracy,
    draw_accuracy_of_size,
    draw_progress,
    draw_size,
)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        name: file name without `.svg`.
        title: what it shows.
        caption: how to read it.
        svg: the file's text; empty where the run has nothing to show.
        absent: why there is none; empty where there is one.
    """

    name: str
    title: str
    caption: str
    svg: str = ""
    absent: str = ""


_DRAWINGS: tuple[tuple[str, str, str, Callable[[History], Figure | None], str], ...] = (
    (
        "progress",
        "Accuracy and loss over time",
        "Growth on the shaded ground, then fine-tuning. Marks along the lower edge are extensions."
        " Training figures are means over the training since the point before, on images as they"
        " are augmented, so they may lie below those of the validation images.",
        draw_progress,
        "",
    ),
    (
        "widths",
        "How the network widened",
        "One step line for each growing layer, from its seed width to its final one;"
        " the vertical axis doubles from mark to mark.",
        draw_widths,
        "No layer of this model grew.",
    ),
    (
        "size",
        "What the parameters bought",
        "Each dot is the network after one extension and its training: up is better,"
        " left is smaller.",
        draw_size,
        "",
    ),
    (
        "spectra",
        "Which directions were worth a neuron",
        "Singular values rank the directions in which a layer lacks expressivity (with GradMax:"
        " in which a neuron gets a gradient). Dots became neurons, the thin line was dropped: a"
        " steep fall behind the dots means that little was left on the table.",
        draw_spectra,
        "This run computed no singular values (its method needs none).",
    ),
    (
        "bottleneck",
        "The expressivity bottleneck",
        "For every extension: the part of the desired update that the layer could not express"
        " (circle), what the closed form promised to leave (dash; exact for linear layers at"
        " amplitude 1) and what was left once the neurons were in (dot). A dot below its circle"
        " means that the extension helped.",
        draw_bottleneck,
        "This run measured no bottleneck (its method needs none).",
    ),
    (
        "search",
        "How strongly new neurons speak",
        "Left: the loss on training images as the amplitude of the new neurons rises, relative to"
        " the network without them; below zero is a gain. Right: the amplitude taken.",
        draw_search,
        "This run searched no amplitude.",
    ),
)


def draw_pictures(history: History) -> list[Picture]:
    """Draw every picture that the history has data for; the others say why they are missing.

    The same history gives the same text.
    """
    pictures = []
    with house_style():
        for name, title, caption, draw, absent in _DRAWINGS:
            figure = draw(history)
            pictures.append(
                Picture(name, title, caption, absent=absent)
                if figure is None
                else Picture(name, title, caption, svg=to_svg(figure, name, title))
            )
    return pictures


def draw_overview(history: History, headline: str) -> bytes:
    """Draw the PNG picture that a README shows.

    Args:
        history: of the model.
        headline: one line above the panels.
    """
    with house_style():
        figure = new_figure(11.0, 6.6)
        axes = figure.subplot_mosaic(
            [["accuracy", "accuracy"], ["widths", "size"]] if history.extensions else [["accuracy"]]
        )
        draw_accuracy(axes["accuracy"], history)
        if history.extensions:
            draw_widths_on(axes["widths"], history)
            draw_accuracy_of_size(axes["size"], history)
        figure.suptitle(history.name, x=0.01, ha="left", fontsize=15, weight="bold")
        figure.text(0.99, 0.985, headline, ha="right", va="top", fontsize=10, color=MUTED)
        return to_png(figure)
