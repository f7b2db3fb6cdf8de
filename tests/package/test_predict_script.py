"""`predict.py` of a package reads images as this project does, on its own."""

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.closure import ROOT
from tinygrow.data.images import FORMATS, read_image

SCRIPT = ROOT / "tinygrow" / "package" / "templates" / "predict.py"


@pytest.fixture(scope="module")
def read() -> Callable[..., np.ndarray]:
    """Return the script's function, without the rest of the script."""
    tree = ast.parse(SCRIPT.read_text())
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef)
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    names: dict[str, Any] = {"FORMATS": FORMATS}
    exec(compile(tree, str(SCRIPT), "exec"), names)
    function: Callable[..., np.ndarray] = names["read"]
    return function


def test_it_is_short_and_needs_three_packages() -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) < 60
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    foreign = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert foreign == {"numpy", "onnxruntime", "PIL"}


def test_it_reads_the_same_formats() -> None:
    (line,) = (x for x in SCRIPT.read_text().splitlines() if x.startswith("FORMATS = "))
    assert ast.literal_eval(line.removeprefix("FORMATS = ")) == FORMATS


def noise(mode: str, size: tuple[int, int] = (37, 23)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., :2].copy().view(np.uint16)[..., 0])
    return Image.fromarray(pixels, "RGBA" if mode == "RGBA" else "CMYK").convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("RGB", "a.png", {}),
        ("L", "a.png", {}),
        ("1", "a.png", {}),
        ("LA", "a.png", {}),
        ("RGBA", "a.png", {}),
        ("P", "a.png", {}),
        ("P", "a.gif", {"transparency": 3}),
        ("RGB", "a.png", {"transparency": (1, 2, 3)}),
        ("I;16", "a.png", {}),
        ("CMYK", "a.jpg", {}),
        ("RGB", "a.jpg", {"exif": 6}),
        ("L", "a.jpg", {"exif": 3}),
        ("RGBA", "a.webp", {}),
    ],
)
def test_every_kind_of_image_is_read_alike(
    read: Callable[..., np.ndarray],
    tmp_path: Path,
    mode: str,
    name: str,
    options: dict[str, Any],
    channels: int,
) -> None:
    image = noise("RGBA").convert(mode) if mode in ("LA", "RGBA") else noise(mode)
    if "exif" in options:
        exif = Image.Exif()
        exif[0x0112] = options["exif"]
        options = {"exif": exif}
    image.save(tmp_path / name, **options)
    right = read_image(tmp_path / name, size=8, channels=channels)
    np.testing.assert_array_equal(read(tmp_path / name, channels, 8), right)


def test_a_large_photo_is_decoded_at_the_same_scale(
    read: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    noise("RGB", (400, 300)).save(tmp_path / "a.jpg")
    right = read_image(tmp_path / "a.jpg", size=16, channels=3)
    np.testing.assert_array_equal(read(tmp_path / "a.jpg", 3, 16), right)
