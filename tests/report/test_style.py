import re

import pytest

from tinygrow.report import style


def test_ramp_runs_from_end_to_end_and_a_single_item_is_allowed() -> None:
    assert style.ramp(0, 1) == style.RAMP[0]
    assert [style.ramp(i, 12) for i in range(12)] == list(style.RAMP)
    assert len(set(style.RAMP)) == 12


@pytest.mark.parametrize(
    ("count", "shape"),
    [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (6, (2, 3)), (8, (2, 4)), (9, (3, 3))],
)
def test_grid_leaves_few_holes(count: int, shape: tuple[int, int]) -> None:
    assert style.grid_shape(count) == shape


def test_labels_do_not_cover_each_other() -> None:
    with style.house_style():
        figure = style.new_figure()
        ax = figure.subplots()
        ax.set_ylim(0, 100)
        style.direct_labels(ax, 1, [(50.0, "a", "black"), (50.1, "b", "black"), (90, "c", "black")])
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == 3
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_inline_svg_gives_each_house_colour_to_the_page() -> None:
    with style.house_style():
        figure = style.new_figure()
        figure.subplots().plot([1, 2], color=style.BLUE)
        element = style.inline_svg(style.to_svg(figure, "one", "a <title> & more"))
    assert element.startswith("<svg ")
    assert "<title>a &lt;title&gt; &amp; more</title>" in element
    assert f"var(--c{style.BLUE[1:]}, {style.BLUE})" in element
    assert "xmlns" not in element and "http" not in element
    used = set(re.findall(r"var\(--c(\w{6}),", element))
    for color in used:
        assert f"--c{color}: #" in style.dark_rules()


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_is_readable_on_both_papers() -> None:
    for color in (style.INK, style.MUTED):
        assert contrast(color, style.PAPER) > 4.5
        assert contrast(style.DARK[color], style.DARK[style.PAPER]) > 4.5


def test_lines_stand_out_on_both_papers() -> None:
    for color in (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, *style.RAMP):
        assert contrast(color, style.PAPER) > 2
        assert contrast(style.DARK[color], style.DARK[style.PAPER]) > 2
