import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pipeline.stages import report
from tests.report.product import images, write_pipeline
from tinygrow.connectivity.from_fx import from_module
from tinygrow.connectivity.report import describe
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_pipeline(tmp_path, depths=(2,), start=(4,), final=(16,), sweeps=3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_page_pictures_samples_and_summary(folder: Path) -> None:
    report.run("toy", observer=Observer())
    written = files(folder / "reports/toy")
    names = ("bottleneck", "progress", "search", "size", "spectra", "widths")
    assert sorted(written) == [
        "index.html",
        "overview.png",
        *(f"pictures/{name}.svg" for name in names),
        *(f"samples/{name}.png" for name in ("0-zero", "1-_one_more", "2-two_2", "23-zero")),
    ]
    assert json.loads((folder / "metrics/toy/summary.json").read_text()) == {
        "test_accuracy": 91.67,
        "onnx_test_accuracy": 91.66,
        "validation_accuracy": 95.5,
        "growth_validation_accuracy": 81.25,
        "parameters": 4919,
        "multiply_adds": 864123,
        "file_bytes": 21345,
        "latency_ms_batch1": 0.4125,
        "validated": True,
    }


def test_sample_images_are_the_pixels_of_the_test_split(folder: Path) -> None:
    report.run("toy", observer=Observer())
    pixels, _ = images(24)
    read = np.asarray(Image.open(folder / "reports/toy/samples/2-two_2.png"))
    np.testing.assert_array_equal(read, pixels[2, 0])


def test_the_snippet_on_the_page_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.run("toy", observer=Observer())
    page = (folder / "reports/toy/index.html").read_text()
    found = re.search(r'<code id="snippet">(.*?)</code>', page, re.S)
    assert found is not None
    exec(compile(html.unescape(found[1]), "snippet", "exec"), {})
    assert capsys.readouterr().out == "zero\n"


def test_a_second_run_writes_the_same_bytes_and_leaves_nothing_beside(folder: Path) -> None:
    report.run("toy", observer=Observer())
    first = files(folder)
    (folder / "reports/toy/stale.txt").write_text("of an older version")
    report.run("toy", observer=Observer())
    assert files(folder) == first


@pytest.mark.parametrize(
    "missing",
    [
        "metrics/toy/growth.csv",
        "metrics/toy/export.json",
        "metrics/toy/validate.json",
        "models/toy/products/fp32.onnx",
        "data/tiles.safetensors",
    ],
)
def test_a_missing_input_is_named_and_nothing_is_written(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(TinygrowError, match=rf"{Path(missing).name} does not exist"):
        report.run("toy", observer=Observer())
    assert not (folder / "reports").exists()
    assert not (folder / "metrics/toy/summary.json").exists()


def test_a_product_that_was_refused_is_told_with_its_reason(folder: Path) -> None:
    report.run("toy", observer=Observer())
    page = (folder / "reports/toy/index.html").read_text()
    table = page[page.index('<section id="products">') : page.index('<section id="gate">')]
    rows = re.findall(r"<tr class.*?</tr>", table, re.S)
    assert "PUBLISHED" in rows[0] and "91.66 %" in rows[0] and "1.23 %" in rows[0]
    assert "REFUSED" in rows[1] and "97.00 %" in rows[1]
    assert "agree &lt;limit 0.985&gt;" in rows[1]


def test_without_any_product_there_is_no_page(folder: Path) -> None:
    told = {"precision": "fp32", "validated": False}
    (folder / "models/toy/products/fp32.json").write_text(json.dumps(told))
    with pytest.raises(TinygrowError, match=r"no product of toy passed the gate; see metrics/toy"):
        report.run("toy", observer=Observer())


def test_incomplete_figures_are_named(folder: Path) -> None:
    (folder / "metrics/toy/export.json").write_text('{"test_accuracy": 91.0}')
    with pytest.raises(TinygrowError, match="metrics/toy lack 'parameters'"):
        report.run("toy", observer=Observer())
    assert not (folder / "reports").exists()


def test_the_wiring_is_told_where_growth_wrote_it(folder: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    told = describe("toy", from_module(network, torch.zeros(2, 4)))
    (folder / "models/toy/connectivity.json").write_text(json.dumps(told))
    report.run("toy", observer=Observer())
    assert "<svg" in (folder / "reports/toy/pictures/connectivity.svg").read_text()
    page = " ".join((folder / "reports/toy/index.html").read_text().split())
    assert '<a href="#connectivity">' in page and "one chain of 3 layers" in page
    assert "2 hidden layers of segment 1 call for about 0.354 of the rate of one" in page

    told = {"model": "toy", "unreadable": "torch.fx cannot follow <it>"}
    (folder / "models/toy/connectivity.json").write_text(json.dumps(told))
    report.run("toy", observer=Observer())
    page = (folder / "reports/toy/index.html").read_text()
    assert "SKIPPED: torch.fx cannot follow &lt;it&gt;." in page
    assert not (folder / "reports/toy/pictures/connectivity.svg").exists()
