"""Wiring at the gate: a file whose skips or layers are not the network's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import nn

from tinygrow.products.gate.connectivity import connectivity
from tinygrow.products.gate.subject import Subject

Edit = Callable[[Callable[[onnx.ModelProto], None]], Path]
Make = Callable[..., Subject]


def merges(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the additions of two values that hang on the image."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [n for n in model.graph.node if n.op_type == "Add" and not {*n.input} & stored]


def test_every_precision_is_wired_as_the_network(
    exported: Path, halved: Path, quantized: Path, make_subject: Make
) -> None:
    for path, precision in ((exported, "fp32"), (halved, "fp16"), (quantized, "int8")):
        check = connectivity(make_subject(path, precision))
        assert check.status == "passed", check.line()
        assert check.numbers == {"layers": 7, "segments": 5, "effective_depth": 5.0}


def test_a_lost_skip_is_found(edited: Edit, make_subject: Make) -> None:
    def lose(model: onnx.ModelProto) -> None:
        add = merges(model)[0]
        made = {name: number for number, n in enumerate(model.graph.node) for name in n.output}
        inner = max(add.input, key=lambda name: made[name])
        add.input[:] = [inner, inner]

    check = connectivity(make_subject(edited(lose)))
    assert check.status == "failed"
    assert check.reason.startswith("segment 1, input to ")
    assert "has paths by depth [0, 0, 0, 0, 1], not [0, 1]" in check.reason


def test_a_skip_around_the_wrong_layer_is_found(edited: Edit, make_subject: Make) -> None:
    def move(model: onnx.ModelProto) -> None:
        first, second = merges(model)
        made = {name: number for number, n in enumerate(model.graph.node) for name in n.output}
        place = min(range(2), key=lambda i: made[second.input[i]])
        second.input[place] = first.output[0]

    check = connectivity(make_subject(edited(move)))
    assert check.status == "failed", check.line()


def test_a_network_that_cannot_be_read_is_skipped_with_the_reason(
    exported: Path, make_subject: Make
) -> None:
    class Hidden(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x) if x.sum() > -1e9 else x

    subject = make_subject(exported)
    check = connectivity(replace(subject, network=Hidden(subject.network)))
    assert check.status == "skipped"
    assert check.reason.startswith("the network cannot be read: torch.fx cannot")
