from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tinygrow.products.gate import numerics
from tinygrow.products.gate.subject import Subject, relative_difference

Edit = Callable[[Callable[[onnx.ModelProto], None]], Path]


def append(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Let nodes stand between `raw`, the former logits, and `logits`."""
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.extend(nodes)


def test_determinism_sees_a_random_operator(
    edited: Edit, make_subject: Callable[..., Subject]
) -> None:
    def change(model: onnx.ModelProto) -> None:
        append(
            model,
            helper.make_node("RandomNormalLike", ["raw"], ["random"]),
            helper.make_node("Add", ["raw", "random"], ["logits"]),
        )

    check = numerics.determinism(make_subject(edited(change)))
    assert check.status == "failed"
    assert "of 2 repeated runs differ" in check.reason


def test_batch_invariance_sees_a_mean_over_the_batch(
    edited: Edit, make_subject: Callable[..., Subject]
) -> None:
    def change(model: onnx.ModelProto) -> None:
        axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
        model.graph.initializer.append(axes)
        append(
            model,
            helper.make_node("ReduceMean", ["raw", "axes"], ["batch_mean"], keepdims=1),
            helper.make_node("Add", ["raw", "batch_mean"], ["logits"]),
        )

    subject = make_subject(edited(change))
    assert numerics.batch_invariance(subject).status == "failed"
    assert numerics.determinism(subject).status == "passed"


def test_tolerance_is_the_settings(exported: Path, make_subject: Callable[..., Subject]) -> None:
    assert numerics.parity(make_subject(exported)).status == "passed"
    check = numerics.parity(make_subject(exported, budget={"relative_tolerance": 1e-12}))
    assert check.status == "failed"
    assert "of the logits' scale, limit 1e-12" in check.reason


@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 4, 4)])
def test_extreme_images(shape: tuple[int, int, int]) -> None:
    images = numerics.extreme_images(shape)
    assert set(images) == {"black", "white", "noise", "checkerboard"}
    assert all(i.dtype == np.uint8 and i.shape[1:] == shape for i in images.values())
    board = images["checkerboard"][0, 0]
    assert set(np.unique(board)) == {0, 255}
    assert (board[:, 1:] != board[:, :-1]).all() and (board[1:] != board[:-1]).all()


def test_relative_difference() -> None:
    right = np.array([[2.0, -4.0]], np.float32)
    assert relative_difference(right + np.float32(0.5), right) == 0.125
    assert relative_difference(right[:, :1], right) == float("inf")
    assert relative_difference(right * np.float32("nan"), right) == float("inf")
    assert relative_difference(0 * right, 0 * right) == 0
