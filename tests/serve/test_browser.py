"""The page in a real browser, against the Python predictor."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from PIL import Image

from tests.serve import chromium, pictures
from tests.serve.chromium import Tab
from tests.serve.files import png
from tinygrow.deploy.predictor import Predictor
from tinygrow.serve.app import Service
from tinygrow.serve.limits import Limits
from tinygrow.serve.page import page_files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not chromium.find(), reason="Chromium is not installed"),
    pytest.mark.skipif(not page_files(), reason="the page is not built (make web)"),
]


@asynccontextmanager
async def opened(
    model: Path, profile: Path, *, broken: bool = False, **limits: int
) -> AsyncIterator[Tab]:
    """Serve a model, open its page, and wait until it is ready; no error may be left in the log."""
    service = Service(model, "cpu", limits=Limits(**limits))
    if broken:
        service._content = b"no model"
    async with TestServer(service.application()) as server, chromium.open_tab(profile) as tab:
        await tab.call("Page.navigate", url=str(server.make_url("/")))
        await tab.until("['ready', 'broken'].includes(document.body?.dataset.state)")
        state = await tab.run("document.body.dataset.state")
        assert state == ("broken" if broken else "ready"), await problem(tab)
        yield tab
        assert complaints(tab) == []
        assert elsewhere(tab, str(server.make_url("/"))) == []


async def problem(tab: Tab) -> str:
    return await tab.run("document.getElementById('problem').textContent")


def complaints(tab: Tab) -> list[Any]:
    """Return what the browser's console has: exceptions, refused headers, failed requests."""
    return [
        event["params"]
        for event in tab.events
        if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
    ]


def elsewhere(tab: Tab, origin: str) -> list[str]:
    """Return the addresses that were asked for outside of the server."""
    asked = [
        event["params"]["request"]["url"]
        for event in tab.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) > 8
    return [url for url in asked if not url.startswith((origin, f"blob:{origin}"))]


async def answer(tab: Tab, file: Path) -> dict[str, float]:
    """Drop an image and return the classes that are shown, best first."""
    await tab.drop(file)
    await tab.until(
        f"document.getElementById('name').textContent === {file.name!r}"
        " && document.body.dataset.state === 'done' || document.body.dataset.state === 'failed'"
    )
    assert await tab.run("document.body.dataset.state") == "done", await problem(tab)
    assert await tab.run("document.getElementById('zone').className") == ""
    rows = await tab.run(
        "[...document.querySelectorAll('#classes li')].map((row) => ({...row.dataset}))"
    )
    return {row["label"]: float(row["probability"]) for row in rows}


@pytest.mark.parametrize(
    ("write_model", "write_images"),
    [
        (pictures.write_grey, pictures.write_grey_images),
        (pictures.write_colour, pictures.write_colour_images),
        (pictures.write_colour, pictures.write_other_images),
    ],
    ids=["grey", "colour", "other sizes"],
)
def test_the_browser_answers_as_python_does(
    tmp_path: Path,
    write_model: Callable[[Path], Path],
    write_images: Callable[[Path], list[Path]],
) -> None:
    model = write_model(tmp_path / "products" / "fp32.onnx")
    files = write_images(tmp_path / "images")
    predictor = Predictor(model, "cpu")
    expected = {f: predictor.predict(f, top=99)[0] for f in files}
    assert len({found.label for found in expected.values()}) > 2

    async def drop_all() -> dict[Path, dict[str, float]]:
        async with opened(model, tmp_path / "profile") as tab:
            assert await tab.run("self.crossOriginIsolated") is True
            return {file: await answer(tab, file) for file in files}

    found = asyncio.run(drop_all())
    for file in files:
        right = dict(expected[file].top)
        assert next(iter(found[file])) == expected[file].label, file.name
        assert len(found[file]) == 5
        for label, probability in found[file].items():
            assert probability == pytest.approx(right[label], abs=1e-3), (file.name, label)


def test_bad_files_are_told_and_the_next_good_one_is_answered(tmp_path: Path) -> None:
    model = pictures.write_colour(tmp_path / "products" / "fp32.onnx")
    good, *_ = pictures.write_colour_images(tmp_path / "images")
    whole = good.read_bytes()
    bad = {
        "text.png": (b"no image", "not an image that this browser can read"),
        "empty.png": (b"", "not an image that this browser can read"),
        "heavy.png": (whole + bytes(9000), "larger than 0 MiB"),
    }
    wide = png(Image.new("L", (70, 60)))
    bad["wide.png"] = (wide, "it has 70 \u00d7 60 pixels, more than this server's limit of 4,000")

    async def drop_all() -> None:
        async with opened(model, tmp_path / "profile", bytes=9000, pixels=4000) as tab:
            for name, (content, words) in bad.items():
                (tmp_path / name).write_bytes(content)
                await tab.drop(tmp_path / name)
                await tab.until("document.body.dataset.state === 'failed'")
                told = await problem(tab)
                assert told.startswith(f"{name} cannot be classified: ")
                assert words in told
                assert await tab.run("document.getElementById('result').hidden") is True
                await answer(tab, good)
                assert await problem(tab) == ""

    asyncio.run(drop_all())


def test_a_model_that_does_not_load_is_told(tmp_path: Path) -> None:
    model = pictures.write_colour(tmp_path / "products" / "fp32.onnx")

    async def look() -> None:
        async with opened(model, tmp_path / "profile", broken=True) as tab:
            assert (await problem(tab)).startswith("The model could not be loaded: ")
            assert await tab.run("document.getElementById('file').disabled") is True

    asyncio.run(look())


def test_the_page_works_by_keyboard(tmp_path: Path) -> None:
    model = pictures.write_colour(tmp_path / "products" / "fp32.onnx")
    good, *_ = pictures.write_colour_images(tmp_path / "images")

    async def choose() -> None:
        async with opened(model, tmp_path / "profile") as tab:
            await tab.call("Page.setInterceptFileChooserDialog", enabled=True)
            await tab.press("Tab", 9)
            assert await tab.run("document.activeElement.id") == "file"
            await tab.press("Enter", 13, "\r")
            await tab.until("true")
            chooser = [e for e in tab.events if e["method"] == "Page.fileChooserOpened"]
            assert len(chooser) == 1
            await tab.call(
                "DOM.setFileInputFiles",
                files=[str(good)],
                backendNodeId=chooser[0]["params"]["backendNodeId"],
            )
            await tab.until("document.body.dataset.state === 'done'")

    asyncio.run(choose())
