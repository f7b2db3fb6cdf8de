"""What is said of a network, and how it is drawn."""

import json
from typing import Any

import pytest
import torch
from torch import nn

from tests.connectivity.test_from_fx import CifarResNet, Written
from tinygrow.connectivity.drawing import draw, draw_png
from tinygrow.connectivity.from_fx import from_module
from tinygrow.connectivity.graph import Graph, Value
from tinygrow.connectivity.learning_rate import depth_ratio, kernel_ratio
from tinygrow.connectivity.report import describe, errors_of
from tinygrow.connectivity.text import report_lines


def told(network: nn.Module, *shape: int) -> dict[str, Any]:
    report = describe("net", from_module(network, torch.zeros(2, *(shape or (4,)))))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    return report


def chain(layers: int, norm: bool = False, width: int = 4) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(width, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, 3))


def advice(report: dict[str, Any]) -> list[dict[str, Any]]:
    return report["outputs"][0]["advice"]


def test_figures_of_a_residual_network() -> None:
    output = told(CifarResNet(False), 3, 4, 4)["outputs"][0]
    assert output["whole"]["layers"] == 20 and output["whole"]["paths"] == "512"
    assert output["whole"]["exact"] == ["11", "512/11"]
    assert [s["depths"] for s in output["segments"][:2]] == [{"1": "1"}, {"0": "1", "2": "1"}]
    # Through pooling there is a way without a layer, and yet none that changes nothing.
    identity = [s["identity_path"] for s in output["segments"]]
    assert [i for i, flag in enumerate(identity) if not flag] == [0, 4, 7, 10]
    assert output["segments"][1]["percentile_depth"] == 37.5
    assert output["advice"] == []
    assert not output["learning_rate"]["applies"]
    assert "summed over the paths" in output["learning_rate"]["why_not"]


def test_a_chain_is_told_where_a_skip_fits() -> None:
    (line,) = advice(told(chain(4)))
    assert line["level"] == "advice" and line["segment"] == 1
    assert "one chain of 4 layers" in line["text"]
    assert "parameter-free skips fit from input to 5 over 3 layers (shape 4)" in line["text"]
    assert "71.9 %" in line["evidence"] and "n = 1 cell each" in line["evidence"]
    (line,) = advice(told(chain(6)))
    assert "from input to 3 over 2 layers (shape 4); 3 to 9 over 3 layers" in line["text"]
    narrowing = nn.Sequential(*(nn.Linear(4 - i, 3 - i) for i in range(3)))
    assert "no two of its values" in advice(told(narrowing))[0]["text"]
    assert advice(told(chain(2))) == []


def test_parallel_layers_are_told_to_be_deepened() -> None:
    (line,) = advice(told(Written(lambda m, x: m.one(x) + m.two(x))))
    assert "deepen one of them" in line["text"]
    lined_up = Written(lambda m, x: torch.cat([m.one(x), m.two(x)], 1))
    assert advice(told(lined_up)) == []


def test_depth_without_norm_or_skip_is_warned_of() -> None:
    warning, _ = advice(told(chain(10)))
    assert warning["level"] == "warning" and "each path has 10 layers or more" in warning["text"]
    assert "about 0.037 of the rate" in warning["text"]
    assert [line["level"] for line in advice(told(chain(10, norm=True)))] == ["advice"]
    assert [line["level"] for line in advice(told(chain(8)))] == ["advice"]


def test_dead_layers_and_missing_paths_are_errors() -> None:
    def dropped(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        m.two(x)
        return x

    report = told(Written(dropped))
    assert errors_of(report) == [
        "two lies on no path to an output: it is computed and dropped",
        "one is never called: its parameters do nothing",
    ]
    values = (Value("input", (), 0, "source"), Value("lost", (0,), 1, "layer"))
    values = (*values, Value("other", (), 0, "source"))
    lost = describe("net", Graph(values=values, outputs=(("y", 2),)))
    assert errors_of(lost)[0] == "no path leads from the input to y"
    assert list(report_lines(lost)) and draw(lost).startswith("<?xml")


def test_learning_rates_scale_with_depth_where_nothing_normalises() -> None:
    rate = told(chain(4))["outputs"][0]["learning_rate"]
    (rule,) = rate["chains"]
    assert rule["hidden"] == 3
    assert rule["against_one"] == pytest.approx(0.192, abs=5e-4)
    assert rule["after_insertion"] == pytest.approx((3 / 4) ** 1.5)
    rate = told(chain(4, norm=True))["outputs"][0]["learning_rate"]
    assert not rate["applies"] and "the network normalises" in rate["why_not"]
    graph = Graph(
        values=from_module(chain(4), torch.zeros(2, 4)).values,
        outputs=(("y", 7),),
        norms_known=False,
    )
    rate = describe("net", graph)["outputs"][0]["learning_rate"]
    assert not rate["applies"] and "does not say whether BatchNorm was folded" in rate["why_not"]


@pytest.mark.parametrize(("hidden", "right"), [(2, 0.354), (5, 0.0894), (10, 0.0316), (16, 0.0156)])
def test_published_ratios(hidden: int, right: float) -> None:
    assert depth_ratio(1, hidden) == pytest.approx(right, rel=2e-3)


def test_ratios_compose_and_refuse_nothing_at_all() -> None:
    assert depth_ratio(2, 3) * depth_ratio(3, 7) == pytest.approx(depth_ratio(2, 7))
    assert kernel_ratio(3, 5) == pytest.approx(0.6)
    for ratio in (depth_ratio, kernel_ratio):
        with pytest.raises(ValueError, match="both must be at least 1"):
            ratio(0, 1)


def test_lines_for_a_terminal() -> None:
    lines = list(report_lines(told(CifarResNet(True), 3, 4, 4)))
    assert lines[0] == "net (read by torch.fx)"
    assert lines[1] == "  22 layers, 512 paths of depth 4 to 20; d 12, m 42.67, bound/P 0.110"
    assert any(line.split()[:4] == ["2", "2", "2", "0:1"] for line in lines)
    assert max(map(len, lines)) <= 100
    deep = list(report_lines(told(nn.Sequential(*(Residual() for _ in range(60))))))
    assert len(deep) < 30 and "2^60" in deep[1]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(x).relu()


def test_the_drawing_has_an_edge_a_layer_and_is_the_same_again() -> None:
    report = told(CifarResNet(True), 3, 4, 4)
    parts = report["outputs"][0]["drawing"]
    edges = [edge for part in parts for edge in part["edges"]]
    assert sum(depth for _, _, depth in edges) == 22
    assert sum(not depth for _, _, depth in edges) == 7
    assert sum(part["depth"] * part["times"] for part in parts) == 20
    assert draw(report) == draw(report)
    assert draw_png(report).startswith(b"\x89PNG")


def test_many_equal_segments_are_drawn_once() -> None:
    report = told(nn.Sequential(*(Residual() for _ in range(100))))
    (part,) = report["outputs"][0]["drawing"]
    assert part["times"] == 100
    assert "100 times" in draw(report)
