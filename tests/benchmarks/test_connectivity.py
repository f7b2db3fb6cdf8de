"""The experiment on three DAGs, tiny: what is trained, kept and told."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import connectivity
from benchmarks.connectivity_report import best_rate, cells_of, read_runs
from tinygrow.connectivity.from_fx import from_module
from tinygrow.connectivity.segments import wirings


@pytest.mark.parametrize(
    ("code", "right"), [("2_02_002", [5]), ("1_01_222", [3, 3, 3]), ("2_21_112", [2, 3, 4, 4])]
)
def test_the_networks_are_wired_as_their_codes_say(code: str, right: list[int]) -> None:
    network = connectivity.DagNetwork(code, inputs=6, classes=3, width=4, seed=0)
    (found,) = wirings(from_module(network, torch.zeros(2, 6)))
    depths = [t for t, count in enumerate(found.paths.counts) for _ in range(count)]
    assert depths == right  # stem and read-out are on every path
    sizes = [sum(p.numel() for p in network.parameters())]
    assert sizes == [6 * 4 + 4 + 3 * (4 * 4 + 4) + 4 * 3 + 3]


def test_runs_are_kept_gone_on_from_and_told(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    images = torch.randint(0, 60, (60, 1, 4, 4), generator=generator)
    images[torch.arange(60), 0, labels] += 190
    data = tmp_path / "data.pt"
    split = (images.to(torch.uint8), labels)
    torch.save({"train": split, "test": split}, data)
    out, target = tmp_path / "out", tmp_path / "target"
    arguments = [str(out), "--data", str(data), "--width", "8", "--epochs", "3"]
    arguments += ["--batch-size", "8", "--train-images", "40", "--validation-images", "20"]
    assert connectivity.main([*arguments, "--seeds", "0", "--rates", "0.01", "1e6"]) == 0
    first = (out / "runs.jsonl").read_text()
    assert connectivity.main([*arguments, "--seeds", "0", "1", "--rates", "0.01", "1e6"]) == 0
    assert (out / "runs.jsonl").read_text().startswith(first)

    cells = cells_of(read_runs(out / "runs.jsonl"))
    assert {len(cell.losses) for cell in cells.values()} == {2}
    for code in connectivity.DAGS.values():
        good = cells[code, 0.01]
        assert [len(curve) for curve in good.curves] == [4, 4] and not good.diverged
        assert all(curve[-1] < curve[0] for curve in good.curves)
        assert best_rate(cells, code) == 0.01
    assert connectivity.main([str(out), "--report", str(target)]) == 0
    names = {"dags.png", "dags.svg", "runs.csv", "table.md"}
    assert {path.name for path in target.iterdir()} == names
    assert "| #3 mixed, smallest | 2.694 | 0.01 | 2 |" in (target / "table.md").read_text()
    assert len((target / "runs.csv").read_text().splitlines()) == 13
    assert json.loads(first.splitlines()[0])["code"] == "2_02_002"
