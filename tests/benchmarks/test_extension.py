import json

import pytest
import torch

from benchmarks import extension
from benchmarks.timing import Timer
from tinygrow.settings.growth import GrowthSettings

SMALL = ["--base-width", "4", "--extensions", "3", "--images", "220", "--device", "cpu"]


@pytest.fixture
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "SHAPE", (3, 8, 8))


@pytest.mark.usefixtures("small_images")
def test_every_part_is_timed_at_every_depth(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        extension.main([*SMALL, "--depths", "4", "17", "--repeats", "1", "--max-images", "200"])
        == 0
    )
    *text, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result["benchmark"] == "extension" and result["device"] == "cpu"
    assert result["arguments"]["repeats"] == 1 and result["threads"] >= 1
    assert [found["depth"] for found in result["depths"]] == [4, 17]
    for found in result["depths"]:
        assert set(found["seconds"]) == set(extension.PARTS)
        timed = [*found["seconds"].values(), *found["training"].values(), found["extension"]]
        for figures in timed:
            assert figures["n"] == 1
            assert 0 < figures["min"] <= figures["median"] <= figures["max"]
        parts = sum(figures["median"] for figures in found["seconds"].values())
        assert parts == pytest.approx(found["extension"]["median"], rel=1e-3)
        assert found["seconds"]["rest"]["median"] < 0.5 * found["extension"]["median"]
        assert found["images"] == 400
        assert found["search_images"] == 220 and found["search_losses"] > 1
        assert 0 < found["share_percent"]["1"]["median"] < 100
    last_case = result["depths"][1]
    assert (last_case["width"], last_case["added"], last_case["final_width"]) == (8, 8, 32)
    assert any(line.startswith("solve ") for line in text)
    assert any("400 images for the moments" in line for line in text)
    assert "holds" not in result


@pytest.mark.usefixtures("small_images")
def test_the_exit_status_says_whether_the_share_holds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*SMALL, "--depths", "4", "--repeats", "1", "--model", "demo"]
    for limit, holds in ((0.0, False), (100.0, True)):
        monkeypatch.setattr(extension, "LARGEST_SHARE", limit)
        assert extension.main(arguments) == (0 if holds else 1)
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert result["holds"] is holds
        assert result["depths"][0]["search_losses"] <= 8  # the settings of `demo`: a bracket


@pytest.mark.usefixtures("small_images")
def test_the_network_itself_is_not_widened() -> None:
    bench = extension.Bench(
        base_width=4,
        start=0.25,
        extensions=3,
        images=200,
        settings=GrowthSettings(),
        device=torch.device("cpu"),
    )
    before = {key: value.clone() for key, value in bench.network.state_dict().items()}
    measured = extension.Measured(bench.case(2), Timer(bench.device))
    widened = bench.extend(measured)
    assert widened.get_submodule("stages.0.block0.conv1").out_channels == 2
    after = bench.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--depths", "3"], "depth is 3; this network grows at depths 2, 4, 7"),
        (["--extensions", "7"], "numbers of extensions that work: 1, 3"),
        (["--device", "tpu"], "device is 'tpu'"),
        (["--base-width", "0"], "base_width is 0"),
    ],
)
@pytest.mark.usefixtures("small_images")
def test_expected_failures_are_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extension.main([*SMALL, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and words in error and error.count("\n") == 1
