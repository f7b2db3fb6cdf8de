from pathlib import Path

import pytest

from tinygrow.data.prepared import DataCard
from tinygrow.errors import TinygrowError
from tinygrow.products.latency import MAX_RUNS, MIN_RUNS, measure_latency


def test_says_what_was_measured(exported: Path, card: DataCard) -> None:
    one, many = measure_latency(exported, card.shape, batches=(1, 8), seconds=0.02)
    assert (one.batch, many.batch) == (1, 8)
    for entry in (one, many):
        assert entry.provider == "cpu"
        assert MIN_RUNS <= entry.runs <= MAX_RUNS and entry.warm_up >= 1
        assert 0 < entry.median_ms <= entry.p90_ms
        assert entry.images_per_second == pytest.approx(1e3 * entry.batch / entry.median_ms)


def test_missing_file(tmp_path: Path, card: DataCard) -> None:
    with pytest.raises(TinygrowError, match=r"gone.onnx does not exist"):
        measure_latency(tmp_path / "gone.onnx", card.shape)
