"""A certificate that the checker refuses is not handed on: the network goes on as it was."""

import pytest
import torch
from torch import nn

from pipeline.stages.compress import _certified
from tests.growth.scenes import CARD
from tests.stability.removal import SETTINGS, made, operations, plant, randomize
from tinygrow.settings.products import ExportSettings


class Pooled(nn.Module):
    """Two convolutions with a dead unit each, and a pool between them."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.pool, self.head = pool, nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.two(self.pool(torch.relu(self.one(x)))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize(
    ("pool", "unchecked"),
    [
        (nn.MaxPool2d(2), None),
        (nn.MaxPool2d(2, ceil_mode=True), ""),  # bounds nothing behind it
        (nn.AdaptiveAvgPool2d(3), "neither float32 nor int64"),  # a file that it does not read
    ],
    ids=["known", "unknown", "unreadable"],
)
def test_a_pool_that_the_checker_does_not_know(pool: nn.Module, unchecked: str | None) -> None:
    network = randomize(Pooled(pool), 0)
    plant(network.one, 0, bias=-500.0)
    plant(network.two, 1, bias=-5000.0)
    compressed = made(network)
    assert operations(compressed) == ["remove", "remove"]
    done, told, _ = _certified("toy", compressed, CARD, SETTINGS, ExportSettings())
    if unchecked is None:
        assert done is compressed and len(told["steps"]) == 2
        return
    assert told["units"] == told["steps"] == [] and told["counts"]["removed"] == 0
    assert any("the checker refuses" in note for note in told["notes"])
    assert told["after"]["initializers"] == told["before"]["initializers"]
    right = done.folded.state_dict()
    assert all(torch.equal(v, right[name]) for name, v in done.network.state_dict().items())
    assert not any(done.architecture.compressed.values())
    assert unchecked in told.get("unchecked", "") and bool(unchecked) == ("unchecked" in told)
