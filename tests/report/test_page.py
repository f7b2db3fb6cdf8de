import copy
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from tests.report.product import FIGURES, SIDECAR, card, images
from tinygrow.errors import TinygrowError
from tinygrow.report.history import History
from tinygrow.report.page import PageData, render_page
from tinygrow.report.pictures import Picture, draw_pictures
from tinygrow.report.samples import choose_samples

VOID = {"meta", "img", "br", "link", "path", "use", "rect"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.ids += [value or "" for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self.ids += [value or "" for key, value in attrs if key == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_data(history: History, pictures: list[Picture], **changes: Any) -> PageData:
    pixels, labels = images(24)

    def logits(batch: np.ndarray) -> np.ndarray:
        return np.stack([batch[:, 0, :, 2 * c].mean(axis=1) for c in range(3)], axis=1)

    card_ = card()
    values: dict[str, Any] = {
        "history": history,
        "pictures": pictures,
        "samples": choose_samples(pixels, labels, card_.classes, logits),
        "data": card_,
        **FIGURES,
        "sidecar": SIDECAR,
        "settings": {"architecture": {"kind": "resnet"}, "growth": {"extensions": 4}, "seed": 3},
        "data_settings": {"source": "digits", "size": 8},
        "versions": {"torch": "9.9.9"},
    }
    return PageData(**(values | changes))


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(history: History, pictures: list[Picture]) -> str:
    return render_page(page_data(history, pictures))


def test_the_page_loads_nothing_from_anywhere(page: str) -> None:
    reader = read(page)
    for tag, key, value in reader.attributes:
        if key in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert value.startswith(("#", "data:image/png;base64,")), (tag, key, value)
    assert "http" not in page
    assert not re.search(r"@import|<script|<link|url\((?!#)", page)


def test_ids_are_unique_and_the_contents_lead_somewhere(page: str) -> None:
    reader = read(page)
    assert len(reader.ids) == len(set(reader.ids))
    anchors = [v[1:] for tag, key, v in reader.attributes if tag == "a" and key == "href"]
    assert len(anchors) == 8
    assert set(anchors) <= set(reader.ids)


@pytest.mark.parametrize(
    "number",
    [
        *("91.67 %", "91.66 %", "81.25 %", "95.50 %", "90.50 %"),  # accuracies
        *("4,919", "864,123", "21.3 kB", "0.412 ms", "3.25 ms", "6.50 ms", "2,424", "19,692"),
        *("4,017", "10,017", "3,217", "1,960", "4,840", "16 extensions", "1 of them"),
        *("1.25e-07", "0.0001", "0.02", "8.0 s", "24 s", "20 s", "1,000 training", "ab" * 32),
        *("growth.extensions", "9.9.9", "no NVIDIA driver <none>"),
    ],
)
def test_every_number_of_the_inputs_appears(page: str, number: str) -> None:
    assert number in " ".join(read(page).text.split())


def test_every_picture_is_inside_and_captioned(page: str) -> None:
    assert page.count("<figure>") == page.count("<figcaption>") == 6
    assert page.count("<svg ") == 6


def test_text_from_outside_is_escaped(history: History, pictures: list[Picture]) -> None:
    evil = "<script>alert(1)</script>"
    validate = copy.deepcopy(FIGURES["validate"])
    validate["checks"]["parity"]["reason"] = evil
    data = page_data(
        history,
        pictures,
        validate=validate,
        settings={"note": evil},
        versions={"torch": evil},
        sidecar={**SIDECAR, "machine": {"processor": evil}},
    )
    page = render_page(data)
    assert "<script" not in page
    assert read(page).text.count(evil) == 4
    assert "&lt;one&gt; &amp; more" in page  # a class name
    assert "made up for a test &amp; &lt;nothing&gt; else" in page


def test_skipped_and_failed_checks_are_loud(history: History, pictures: list[Picture]) -> None:
    page = " ".join(read(render_page(page_data(history, pictures))).text.split())
    assert "1 check SKIPPED" in page and "what could not run proves nothing" in page
    assert "FAILED" not in page
    validate = copy.deepcopy(FIGURES["validate"])
    validate["passed"] = False
    validate["checks"]["parity"] |= {"status": "failed", "reason": "0.5 of the scale"}
    data = page_data(history, pictures, validate=validate, sidecar={**SIDECAR, "latency": []})
    page = " ".join(read(render_page(data)).text.split())
    assert "toy FAILED" in page and "did NOT pass the gate" in page and "0.5 of the scale" in page
    assert "Latency was not measured, for the file did not pass the gate." in page


def test_a_model_that_never_grew_says_so(make_history) -> None:
    quiet = make_history(method="none", finetune_epochs=0)
    finetune = {**FIGURES["finetune"], "images_seen": 0, "seconds": 0.0}
    text = " ".join(
        read(render_page(page_data(quiet, draw_pictures(quiet), finetune=finetune))).text.split()
    )
    assert "No layer grew" in text
    assert "None: the model is as growth left it." in text
    assert text.count("no picture.") == 4


def test_a_missing_figure_is_an_error_of_one_line(
    history: History, pictures: list[Picture]
) -> None:
    grow = {k: v for k, v in FIGURES["grow"].items() if k != "rejected"}
    with pytest.raises(TinygrowError, match=r"figures of model 'toy'.*rejected"):
        render_page(page_data(history, pictures, grow=grow))


def test_the_same_inputs_give_the_same_page(
    history: History, pictures: list[Picture], page: str
) -> None:
    assert render_page(page_data(history, pictures)) == page
