import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("gromo")

from benchmarks import growth

SMALL = ["--images", "4", "--neurons", "2", "--device", "cpu", "--repeats", "2"]
SMALL += ["--rival-repeats", "1", "--solve-repeats", "1"]


def test_a_small_run_compares_both_sides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "growth.json"
    arguments = [*SMALL, "--shapes", "8x6x6", "--solve-size", "73", "--output", str(path)]
    assert growth.main(arguments) == 0
    captured = capsys.readouterr()
    *text, last = captured.out.splitlines()
    result = json.loads(last)
    assert json.loads(path.read_text()) == result
    (stage,) = result["stages"]
    assert stage["shape"] == "8x6x6" and stage["device"] == "cpu"
    counts = {"tinygrow": 2, "gromo restricted": 2, "gromo full": 1}
    for name, count in counts.items():
        seconds = stage["seconds"][name]
        assert set(seconds) == {"statistics", "best update", "neurons"}
        assert seconds["statistics"]["n"] == count and seconds["statistics"]["min"] > 0
        size = stage["peak_extra_bytes"][name]
        assert (size is None) == (name in stage["skipped"]) and (size is None or size >= 0)
    assert set(stage["agreement"]) == {"S", "N"}
    assert max(stage["agreement"].values()) < 1e-3
    ratio = stage["seconds"]["gromo full"]["statistics"]["median"]
    ratio /= stage["seconds"]["tinygrow"]["statistics"]["median"]
    assert stage["ratios"]["statistics_full"] == pytest.approx(ratio, rel=1e-2)
    assert [solve["problem"] for solve in result["solves"]] == ["full rank", "rank-deficient"]
    full, deficient = result["solves"]
    assert 0 < full["agreement"] < 1e-3 and deficient["agreement"] is None
    # Only agreement is judged where the issue sets no speed: two of the stage, one of the solve.
    assert len(result["targets"]) == 3 and result["holds"] is True
    assert any("gromo restricted" in line for line in text)
    assert "statistics 1 of 2" in captured.err


def test_a_target_that_fails_gives_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth, "STATISTICS_SPEEDUP", {"8x6x6": 1e9})
    monkeypatch.setattr(growth, "RESTRICTED_SPEEDUP", 0.0)
    monkeypatch.setattr(growth, "peak_memory", lambda *_: (-1, "not in this test"))
    assert growth.main([*SMALL, "--shapes", "8x6x6", "--solve-size", "0"]) == 1
    *text, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result["holds"] is False and result["solves"] == []
    failed = [target["target"] for target in result["targets"] if not target["holds"]]
    assert failed == ["cpu 8x6x6: statistics, speed-up on full"]
    assert result["stages"][0]["peak_extra_bytes"]["tinygrow"] is None
    assert any("SKIPPED: not in this test" in line for line in text)
    assert any("DOES NOT HOLD" in line for line in text)


def test_the_solve_is_judged_at_its_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth, "SOLVE_SIZE", 65)
    monkeypatch.setattr(growth, "SOLVE_SPEEDUP", {"full rank": 1e9, "rank-deficient": 0.0})
    assert growth.main([*SMALL, "--shapes", "--solve-size", "65"]) == 1
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [target["holds"] for target in result["targets"]] == [False, True, True]


def test_the_synthetic_problems_have_their_rank() -> None:
    full, deficient = growth.synthetic(65, 130), growth.synthetic(65, 16)
    values = torch.linalg.eigvalsh(full.S)
    assert 1e2 < float(values[-1] / values[0]) < 1e4
    assert int(torch.linalg.matrix_rank(deficient.S, hermitian=True)) == 16
    assert full.N.shape == deficient.N.shape == (65, 64)


@pytest.mark.parametrize("text", ["64x32", "0x4x4", "6x4x4", "ax4x4"])
def test_a_wrong_shape_is_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert growth.main([*SMALL, "--shapes", text]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: shape is {text!r}") and error.count("\n") == 1
