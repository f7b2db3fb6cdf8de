from typing import Any

import pytest

from tests.settings.refusal import check_form, check_words, refused
from tinygrow.settings.data import (
    Cifar10Settings,
    Cifar100Settings,
    DigitsSettings,
    ImageFolderSettings,
)

MIRROR = (
    "it must be an address such as https://host/cifar-10-python.tar.gz, percent-encoded and without"
    " a password, or file:///path, or a path"
)


def test_form() -> None:
    check_form(DigitsSettings)
    check_form(ImageFolderSettings, path="images")
    check_words(ImageFolderSettings, path="images")
    for settings in (Cifar10Settings, Cifar100Settings):
        check_form(settings)
        assert settings().size == 32


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


@pytest.mark.parametrize("settings", [Cifar10Settings, Cifar100Settings])
@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("validation_fraction", 0.0, "it must lie between 0 and 1"),
        ("validation_fraction", 1.0, "it must lie between 0 and 1"),
        ("max_train_images", -1, "at least 0"),
        ("max_test_images", -1, "at least 0"),
        ("seed", 2**32, "it must be from 0 to 4294967295"),
        ("attempts", 0, "it must be from 1 to 1000"),
        ("attempts", 1001, "it must be from 1 to 1000"),
        ("timeout_seconds", 0.0, "it must be above 0 and at most 86400"),
        ("timeout_seconds", 86_401.0, "it must be above 0 and at most 86400"),
        ("timeout_seconds", float("nan"), "it must be above 0 and at most 86400"),
    ],
)
def test_ranges_of_cifar(settings: type, name: str, value: Any, remedy: str) -> None:
    assert refused(settings, name, value).endswith(remedy)


@pytest.mark.parametrize(
    "mirror",
    [
        "ftp://host/x",
        "s3://bucket/x",
        "://host/x",
        "http:///x",
        "https://host:0/x",
        "https://host:99999/x",
        "https://host:port/x",
        "https://[host/x",
        "https://me:secret@host/x",
        "https://host/two words",
        "https://host/größe",
        "https://host/line\nend",
        "file://host/x",
        "file:///two words",
    ],
)
def test_mirrors_that_no_attempt_could_reach(mirror: str) -> None:
    assert refused(Cifar10Settings, "mirror", mirror).endswith(MIRROR)


@pytest.mark.parametrize(
    "mirror",
    [
        "",
        "inbox/cifar-10-python.tar.gz",
        "../größe/two words",
        "/absolute",
        "file:///with%20blank/x",
        "FILE://localhost/x",
        "http://127.0.0.1:8080/x",
        "HTTPS://host/x?a=b",
        "https://[::1]/x",
    ],
)
def test_mirrors_that_may_be_right(mirror: str) -> None:
    assert Cifar100Settings(mirror=mirror).mirror == mirror


def test_the_limits_themselves_are_allowed() -> None:
    for size, seed in ((1, 0), (4096, 2**32 - 1)):
        assert DigitsSettings(size=size, seed=seed).size == size
        assert ImageFolderSettings(path="images", size=size, seed=seed).seed == seed
    for attempts, seconds in ((1, 1e-3), (1000, 86_400.0)):
        settings = Cifar10Settings(attempts=attempts, timeout_seconds=seconds)
        assert (settings.attempts, settings.timeout_seconds) == (attempts, seconds)
