from typing import Any

import pytest

from tests.settings.refusal import check_form, check_words, refused
from tinygrow.settings.data import DigitsSettings, ImageFolderSettings


def test_form() -> None:
    check_form(DigitsSettings)
    check_form(ImageFolderSettings, path="images")
    check_words(ImageFolderSettings, path="images")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 0),
        ("size", 4097),
        ("seed", -1),
        ("seed", 2**32),
        ("test_fraction", 0.0),
        ("test_fraction", 1.0),
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("validation_fraction", float("nan")),
    ],
)
def test_ranges_of_both_sources(name: str, value: Any) -> None:
    assert repr(value) in refused(DigitsSettings, name, value)
    assert repr(value) in refused(ImageFolderSettings, name, value, path="images")


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("path", "", "it must name a folder or an archive"),
        ("max_train_images", -1, "at least 0"),
        ("max_test_images", -1, "at least 0"),
        ("max_files", 0, "at least 1"),
        ("max_gigabytes", 0.0, "above 0"),
    ],
)
def test_ranges_of_image_folders(name: str, value: Any, remedy: str) -> None:
    others = {} if name == "path" else {"path": "images"}
    assert refused(ImageFolderSettings, name, value, **others).endswith(remedy)


def test_the_limits_themselves_are_allowed() -> None:
    for size, seed in ((1, 0), (4096, 2**32 - 1)):
        assert DigitsSettings(size=size, seed=seed).size == size
        assert ImageFolderSettings(path="images", size=size, seed=seed).seed == seed
