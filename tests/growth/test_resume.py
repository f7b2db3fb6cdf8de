"""Growth that is stopped and goes on gives the same bits as growth that is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.growth.scenes import patterns, perceptron, quick_settings, resnet, stream
from tests.state.interrupt import run_in_pieces
from tinygrow.growth.grow import Grown, grow
from tinygrow.growth.plan import measured
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.plan import UntilSettings, WhenSettings, WhereSettings
from tinygrow.settings.training import TrainingSettings
from tinygrow.state.keeper import Keeper

MOMENTUM = TrainingSettings(
    batch_size=16, learning_rate=0.05, momentum=0.9, schedule="cosine", ema=0.8
)
ADAM = TrainingSettings(optimizer="adamw", batch_size=16, learning_rate=0.01, ema=0.5)


def grown(
    settings: GrowthSettings, kind: str, keeper: Keeper, snapshots: dict[int, Any] | None = None
) -> Grown:
    network, start = resnet() if kind == "resnet" else perceptron((1, 2))
    network = network.to(memory_format=torch.channels_last)

    def snapshot(architecture: Any, weights: torch.nn.Module, rows: Any) -> None:
        if snapshots is not None:
            copy = {k: v.clone() for k, v in weights.state_dict().items()}
            snapshots[rows[-1].extension] = copy

    return grow(
        network,
        start,
        replace(start, middle_widths=(4, 5)),
        stream(seed=3),
        patterns(30, seed=2),
        settings,
        seed=7,
        snapshot=snapshot,
        keeper=keeper,
    )


def timeless(result: Grown) -> list[Any]:
    return [
        replace(
            row,
            **{name: 0.0 for name in row.__dataclass_fields__ if name.startswith("seconds")},
        )
        for row in result.rows
    ]


def in_pieces(folder: Path, settings: GrowthSettings, kind: str, points: int) -> Grown:
    """Grow at once and in pieces; check that both give the same bits, which are returned."""
    final_snapshots: dict[int, Any] = {}
    whole = grown(settings, kind, Keeper(), final_snapshots)
    snapshots: dict[int, Any] = {}
    pieces, stops = run_in_pieces(
        folder, lambda keeper: grown(settings, kind, keeper, snapshots), points
    )

    assert stops >= 2
    one, two = whole.network.state_dict(), pieces.network.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert pieces.architecture == whole.architecture
    assert timeless(pieces) == timeless(whole)
    assert pieces.curves == whole.curves
    assert pieces.ended == whole.ended
    assert snapshots.keys() == final_snapshots.keys()
    for number, weights in final_snapshots.items():
        assert all(torch.equal(weights[k], snapshots[number][k]) for k in weights)
    return whole


@pytest.mark.parametrize("points", [1, 2, 5])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("resnet", {}),
        ("resnet", {"training": MOMENTUM, "optimizer_state": "pad"}),
        ("mlp", {"training": ADAM, "optimizer_state": "pad", "train_after": "sweep"}),
        ("resnet", {"method": "random", "training": MOMENTUM}),
        ("resnet", {"method": "net2wider", "training": MOMENTUM, "optimizer_state": "pad"}),
        ("mlp", {"method": "firefly"}),
        ("mlp", {"method": "none"}),
    ],
    ids=["plain", "momentum", "adam", "random", "net2wider", "firefly", "none"],
)
def test_every_point_of_a_growth_can_be_stopped_at(
    tmp_path: Path, kind: str, changes: dict[str, Any], points: int
) -> None:
    in_pieces(tmp_path / "s", quick_settings(**changes), kind, points)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (
            "resnet",
            {
                "where": WhereSettings(order="greedy", images=32),
                "until": UntilSettings(parameters=1000),
            },
        ),
        (
            "mlp",
            {
                "where": WhereSettings(order="greedy", score="per_latency", images=32),
                "when": WhenSettings(trigger="plateau", improvement=0.1, max_epochs=1.5),
                "until": UntilSettings(latency_ms=650.0),
                "training": MOMENTUM,
                "optimizer_state": "pad",
            },
        ),
        (
            "mlp",
            {
                "where": WhereSettings(images=32),
                "when": WhenSettings(trigger="significant", max_epochs=1.0, z=0.3),
            },
        ),
    ],
    ids=["greedy", "plateau", "significant"],
)
def test_open_plans_decide_the_same_when_stopped_at_every_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any]
) -> None:
    def milliseconds(networks: list[torch.nn.Module], *_: Any) -> list[float]:
        return [float(sum(p.numel() for p in n.parameters())) for n in networks]

    monkeypatch.setattr(measured, "milliseconds", milliseconds)  # real ones differ in every run
    whole = in_pieces(tmp_path / "s", quick_settings(**changes), kind, 1)
    assert any(row.site is not None for row in whole.rows)
