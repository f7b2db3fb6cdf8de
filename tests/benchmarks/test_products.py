import json

import pytest

from benchmarks import products
from tinygrow.benchmark.measure import Cell


def cell(variant: str, rate: float) -> Cell:
    engine = "pytorch" if variant.startswith("eager") else "onnxruntime"
    names = {"engine": engine, "variant": variant, "device": "cpu"}
    return Cell(**names, batch=64, runs=200, wanted=200, images_per_second=rate)


@pytest.mark.parametrize(
    ("fp32", "int8", "holds"),
    [
        (131.0, 401.0, {"fp32": True, "int8": True}),
        (131.0, 399.0, {"fp32": True, "int8": False}),
        (129.0, 401.0, {"fp32": False, "int8": True}),
    ],
)
def test_the_best_eager_layout_is_what_counts(
    fp32: float, int8: float, holds: dict[str, bool]
) -> None:
    rates = {"fp32": fp32, "fp16": 90.0, "int8": int8, "eager": 100.0}
    rates |= {"eager, channels-last": 80.0, "eager, folded": 110.0}
    rates |= {"eager, channels-last, folded": 125.0, "compiled": 1000.0}
    found = products.judge([cell(variant, rate) for variant, rate in rates.items()])
    assert found["holds"] == holds
    assert found["trained"]["int8"] == int8 / 100
    assert found["folded"]["fp32"] == round(fp32 / 125, 3)


def test_a_small_run(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--base-width", "4", "--batch", "2", "--runs", "5", "--threads", "1"]
    status = products.main(small)
    *text, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert status == (0 if all(result["holds"].values()) else 1)
    assert set(result["runs"].values()) == {5}
    assert {"fp32", "fp16", "int8", "eager", "eager, folded"} <= result["medians_ms"].keys()
    assert any("images/s at 2" in line for line in text)
