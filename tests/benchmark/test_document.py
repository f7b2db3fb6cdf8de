import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tinygrow.benchmark.document import (
    cells_of,
    cells_to_csv,
    read_document,
    remarks,
    surroundings,
    table,
    to_document,
)
from tinygrow.benchmark.measure import Cell, Plan
from tinygrow.errors import TinygrowError
from tinygrow.report.speed import speed_svg


def cell(engine: str, variant: str, batch: int, runs: int = 200, **more: Any) -> Cell:
    figures: dict[str, Any] = {}
    if runs:
        figures = {"p50_ms": 0.5 * batch, "p90_ms": 0.75 * batch, "p99_ms": 1.0 * batch}
        figures["images_per_second"] = 2000.0
    names = {"engine": engine, "variant": variant, "device": "cpu"}
    return Cell(**names, batch=batch, runs=runs, wanted=200, **(figures | more))


CELLS = [
    cell("onnxruntime", "fp32", 1),
    cell("onnxruntime", "int8", 1),
    cell("pytorch", "eager", 1),
    cell("pytorch", "compiled", 1, 0, reason="no compiler"),
    cell("onnxruntime", "fp32", 64),
    cell("onnxruntime", "int8", 64, 17),
    cell("pytorch", "eager", 64),
    cell("pytorch", "compiled", 64, 0, reason="no compiler"),
]


def document() -> dict[str, Any]:
    return to_document(
        "toy",
        CELLS,
        Plan(),
        checksums={"fp32": "a", "int8": "b"},
        absent=[],
        surroundings=surroundings(2),
    )


def test_it_survives_the_way_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.json"
    assert read_document(path) is None
    path.write_text(json.dumps(document()))
    assert read_document(path) == document()
    assert document()["machine"]["threads"] == 2
    assert {"processor", "torch", "numpy", "python"} <= document()["machine"].keys()
    path.write_text('{"cells": []}')
    with pytest.raises(TinygrowError, match="is not what the benchmark writes"):
        read_document(path)


def test_figures_of_other_files_are_not_told() -> None:
    told = {(c["engine"], c["variant"]) for c in cells_of(document(), {"fp32": "a", "int8": "new"})}
    assert told == {("onnxruntime", "fp32"), ("pytorch", "eager")}
    assert cells_of(document(), {"fp32": "new"}) == []


def test_the_table_and_what_is_amiss() -> None:
    lines = table(CELLS).splitlines()
    assert lines[0].split("  ")[0] == "engine"
    assert lines[2].split() == [
        "onnxruntime",
        "int8",
        "cpu",
        *["0.500", "0.750", "1.00", "2,000", "2,000*"],
    ]
    assert remarks(CELLS, ["onnxruntime fp32 on cuda: no"]) == [
        "CUT by the time budget: onnxruntime int8 on cpu, batch 64: 17 of 200 timed runs",
        "NOT MEASURED: pytorch compiled on cpu: no compiler",
        "NOT MEASURED: onnxruntime fp32 on cuda: no",
    ]


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(cells_to_csv(CELLS))))
    assert [row["runs"] for row in rows] == ["200", "200", "200", "0", "200", "17", "200", "0"]
    assert (rows[5]["cut"], rows[4]["cut"], rows[3]["p50_ms"]) == ("1", "0", "")


@pytest.mark.parametrize("batches", [{1, 64}, {1}])
def test_the_picture_names_what_was_measured(batches: set[int]) -> None:
    cells = [c for c in document()["cells"] if c["batch"] in batches]
    drawn = speed_svg(cells, "toy")
    assert drawn == speed_svg(cells, "toy")
    for name in ("fp32", "int8", "PyTorch eager", "Latency, 1 image a call"):
        assert f">{name}<" in drawn
    assert "compiled" not in drawn
