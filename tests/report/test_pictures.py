import dataclasses
import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from PIL import Image

from tinygrow.report.history import History
from tinygrow.report.pictures import Picture, draw_overview, draw_pictures

SVG = "{http://www.w3.org/2000/svg}"
FEW = {"depths": (2,), "start": (4,), "final": (16,)}
NAMES = ["progress", "widths", "size", "spectra", "bottleneck", "search"]


def texts(picture: Picture) -> list[str]:
    return ["".join(e.itertext()).strip() for e in ET.fromstring(picture.svg).iter(f"{SVG}text")]


def by_name(pictures: list[Picture]) -> dict[str, Picture]:
    return {picture.name: picture for picture in pictures}


@pytest.fixture
def drawn(pictures: list[Picture]) -> dict[str, Picture]:
    return by_name(pictures)


def test_every_picture_is_an_svg_with_a_title_and_no_date(drawn: dict[str, Picture]) -> None:
    assert list(drawn) == NAMES
    for picture in drawn.values():
        root = ET.fromstring(picture.svg)
        assert root.tag == f"{SVG}svg"
        assert root.findtext(f"{SVG}title") == picture.title
        assert "metadata" not in picture.svg
        assert picture.caption and not picture.absent


def test_ids_differ_between_pictures_and_every_reference_has_its_target(
    drawn: dict[str, Picture],
) -> None:
    seen: set[str] = set()
    for picture in drawn.values():
        root = ET.fromstring(picture.svg)
        ids = {e.attrib["id"] for e in root.iter() if "id" in e.attrib}
        assert not ids & seen
        seen |= ids
        links = {
            value.removeprefix("#")
            for e in root.iter()
            for key, value in e.attrib.items()
            if key.endswith("href")
        }
        clips = {
            e.attrib["clip-path"].removeprefix("url(#").removesuffix(")")
            for e in root.iter()
            if "clip-path" in e.attrib
        }
        assert links and clips
        assert links | clips <= ids


def test_progress_names_both_phases_and_marks_the_extensions(drawn: dict[str, Picture]) -> None:
    words = texts(drawn["progress"])
    for word in ("growth", "fine-tuning", "Accuracy (%)", "Loss (cross-entropy)", "0", "4", "14"):
        assert word in words
    assert "epochs of training (the two phases are drawn at different scales)" in words


def test_widths_label_each_depth_at_its_final_width(drawn: dict[str, Picture]) -> None:
    words = texts(drawn["widths"])
    assert "depths 2, 4" in words and "depths 7, 9" in words
    assert {"4", "8", "16", "32"} <= set(words)


@pytest.mark.parametrize("name", ["spectra", "bottleneck"])
def test_small_multiples_have_one_panel_a_depth(drawn: dict[str, Picture], name: str) -> None:
    assert [t for t in texts(drawn[name]) if t.startswith("depth ")] == [
        f"depth {d}" for d in (2, 4, 7, 9)
    ]


def test_search_tells_of_rejected_extensions(drawn: dict[str, Picture]) -> None:
    assert "no gain found: added with zero weights" in texts(drawn["search"])


def test_the_number_of_width_lines_is_the_number_of_depths(make_history) -> None:
    from tinygrow.report.growth_curves import draw_widths

    figure = draw_widths(make_history(depths=(2, 4, 7), start=(2, 2, 4), final=(6, 6, 12)))
    assert figure is not None
    assert [len(ax.get_lines()) for ax in figure.axes] == [3]


def test_the_curves_hold_the_numbers_of_the_table(make_history) -> None:
    from tinygrow.report.training_curves import draw_progress

    history = make_history()
    accuracy = draw_progress(history).axes[0]
    validation = next(x for x in accuracy.get_lines() if x.get_label() == "validation images")
    expected = [r.validation_accuracy for r in history.growth]
    expected += [e.validation_accuracy for e in history.finetuning[1:]]
    assert list(validation.get_ydata()) == expected
    assert list(validation.get_xdata())[-1] == 4 + 10
    marks = sum(len(c.get_segments()) for c in accuracy.collections if hasattr(c, "get_segments"))
    assert marks == 16 + 4


def test_a_chosen_order_has_no_sweeps_and_trainings_alone_are_told(make_history) -> None:
    from tinygrow.report.growth_curves import draw_widths
    from tinygrow.report.training_curves import draw_progress

    swept = make_history()
    one, two = swept.growth[1:3]
    alone = dataclasses.replace(one, sweep=0, depth=None, width_after=math.nan)
    chosen = dataclasses.replace(
        swept, growth=(swept.growth[0], alone, two, one, *swept.growth[3:])
    )
    for history, mark, what in (
        (swept, "an extension (long: a new sweep)", "extensions"),
        (chosen, "an extension", "extensions and trainings without one"),
    ):
        marks = draw_progress(history).axes[0].collections
        assert mark in [str(c.get_label()) for c in marks]
        widths = draw_widths(history)
        assert widths is not None
        assert widths.axes[0].get_xlabel() == what


def test_the_same_history_gives_the_same_bytes(
    drawn: dict[str, Picture], make_history: Callable[..., History]
) -> None:
    history = make_history()
    assert by_name(draw_pictures(history)) == drawn
    assert draw_overview(history, "one line") == draw_overview(history, "one line")


def test_methods_without_statistics_say_why_there_is_no_picture(make_history) -> None:
    random = by_name(draw_pictures(make_history(method="random")))
    assert [n for n in NAMES if not random[n].svg] == ["spectra", "bottleneck"]
    gradmax = by_name(draw_pictures(make_history("silent", method="gradmax")))
    assert [n for n in NAMES if not gradmax[n].svg] == ["bottleneck", "search"]
    assert gradmax["search"].absent == "This run searched no amplitude."
    none = by_name(draw_pictures(make_history("quiet", method="none", finetune_epochs=0)))
    assert [n for n in NAMES if not none[n].svg] == ["widths", "spectra", "bottleneck", "search"]
    assert none["widths"].absent == "No layer of this model grew."
    assert "fine-tuning" not in texts(none["progress"])


@pytest.mark.parametrize(
    "changes",
    [
        {"depths": (1,), "start": (4,), "final": (16,), "sweeps": 12, "finetune_epochs": 0},
        {**FEW, "epochs_between": 0, "finetune_epochs": 0},
        {**FEW, "epochs_between": 0},
        {**FEW, "sweeps": 1, "spectrum": 1},
        {**FEW, "sweeps": 40, "final": (44,), "finetune_epochs": 250, "spectrum": 900},
        {**FEW, "sweeps": 80, "final": (84,)},
    ],
)
def test_odd_runs_are_drawn(make_history, changes: dict) -> None:
    history = make_history(**changes)
    for picture in draw_pictures(history):
        ET.fromstring(picture.svg)
    assert draw_overview(history, "").startswith(b"\x89PNG")


def test_overview_is_a_png_without_a_time(history: History) -> None:
    image = Image.open(io.BytesIO(draw_overview(history, "91.67 % right")))
    assert image.format == "PNG"
    assert not set(image.info) & {"Creation Time", "Software"}


def test_drawing_leaves_the_settings_of_the_caller(make_history) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw_pictures(make_history(method="none", **FEW))
    assert dict(mpl.rcParams) == before


def test_logarithmic_axes_are_labelled_with_plain_numbers(make_history) -> None:
    history = make_history()
    fall = [
        dataclasses.replace(row, bottleneck_before=row.bottleneck_before * 10.0 ** -(i / 4))
        for i, row in enumerate(history.growth)
    ]
    drawn = by_name(draw_pictures(dataclasses.replace(history, growth=fall)))
    labels = texts(drawn["bottleneck"])
    assert not [label for label in labels if "$" in label]
    assert "0.01" in labels
