"""Two compressed networks, a perceptron and one with residual blocks, made by hand."""

from pathlib import Path

import numpy as np
import pytest

from tests.certify.files import Files, Weights, perceptron, residual, unit


def float32(*shape: int, seed: int) -> np.ndarray:
    """Return random weights."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dense_weights() -> Weights:
    """Return a perceptron: of `layers.0` unit 1 is dead, 3 is twice 2 but for the bias, 4 is 3.5.

    All inputs lie in [-1, 127/128].
    """
    w0, b0 = float32(5, 4, seed=0), float32(5, seed=1)
    w0[1], b0[1] = [1, -1, 0.5, 0.5], -10
    w0[2], b0[2] = [0.5, 0.25, -0.5, 1], 4
    w0[3], b0[3] = 2 * w0[2], 9
    w0[4], b0[4] = 0, 3.5
    w1, b1 = float32(3, 5, seed=2), float32(3, seed=3)
    b1[2] = -200
    return {
        "layers.0.weight": w0,
        "layers.0.bias": b0,
        "layers.1.weight": w1,
        "layers.1.bias": b1,
        "head.weight": float32(2, 3, seed=4),
        "head.bias": float32(2, seed=5),
    }


def highest(weight: np.ndarray, bias: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the largest value of each unit, input by input."""
    return np.array(
        [
            b
            + sum(max(float(a) * lo, float(a) * hi) for a, lo, hi in zip(w, low, high, strict=True))
            for w, b in zip(weight.astype(float), bias.astype(float), strict=True)
        ]
    )


@pytest.fixture
def dense(tmp_path: Path) -> Files:
    """Unit 1 is removed, 4 a constant, 3 merged into 2; of `layers.1` unit 2 is removed."""
    before = dense_weights()
    w0, b0, w1, b1 = (before[k].astype(float) for k in list(before)[:4])
    low, high = np.full(4, -1.0), np.full(4, 127 / 128)
    tops = highest(w0, b0, low, high)
    lows = -highest(-w0, -b0, low, high)
    after_tops = highest(w1, b1, np.maximum(lows, 0), np.maximum(tops, 0))
    b1 = b1 + 3.5 * w1[:, 4] + (9 - 2 * 4) * w1[:, 3]
    w1[:, 2] += 2 * w1[:, 3]
    product = {
        "layers.0.weight": before["layers.0.weight"][[0, 2]],
        "layers.0.bias": before["layers.0.bias"][[0, 2]],
        "layers.1.weight": w1[:2][:, [0, 2]],
        "layers.1.bias": b1[:2],
        "head.weight": before["head.weight"][:, :2],
        "head.bias": before["head.bias"],
    }
    units = [
        unit("layers.0", 1, tops[1]),
        unit("layers.0", 2, lows[2], "kept"),
        unit("layers.0", 3, lows[3], "merged"),
        unit("layers.0", 4, 3.5, "constant"),
        unit("layers.1", 2, after_tops[2]),
    ]
    here = {"layer": "layers.0", "reader": "layers.1"}
    steps = [
        {"op": "remove", **here, "units": [1]},
        {"op": "constant", **here, "units": [4], "values": [3.5]},
        {"op": "merge", **here, "units": [3], "into": [2], "coefficients": [[2.0]]},
        {"op": "remove", "layer": "layers.1", "reader": "head", "units": [2]},
    ]
    return Files.make(tmp_path, perceptron(before), perceptron(product), units, steps)


def residual_weights() -> Weights:
    """Return two blocks on a stream of 3, of which channel 1 is always 0; the second adds nothing.

    Of `block0.conv1` unit 2 is dead.
    """
    weights: Weights = {"stem.weight": float32(3, 1, 3, 3, seed=1), "stem.bias": float32(3, seed=2)}
    for number, middle in ((0, 4), (1, 2)):
        path = f"block{number}"
        weights[f"{path}.conv1.weight"] = float32(middle, 3, 3, 3, seed=3 + number)
        weights[f"{path}.conv1.bias"] = float32(middle, seed=5 + number)
        weights[f"{path}.conv2.weight"] = float32(3, middle, 3, 3, seed=7 + number)
        weights[f"{path}.conv2.bias"] = float32(3, seed=9 + number)
    weights["stem.weight"][1], weights["stem.bias"][1] = 0, -0.5
    weights["block0.conv2.weight"][1], weights["block0.conv2.bias"][1] = 0, 0
    weights["block0.conv1.bias"][2] = -500
    weights["block1.conv2.weight"][:], weights["block1.conv2.bias"][:] = 0, 0
    weights["head.weight"], weights["head.bias"] = float32(2, 3, seed=11), float32(2, seed=12)
    return weights


@pytest.fixture
def blocks(tmp_path: Path) -> Files:
    """The dead unit, the channel of the stream and the second block are gone: only deletions."""
    before = residual_weights()
    stream, middle = [0, 2], [0, 1, 3]
    product = {
        "stem.weight": before["stem.weight"][stream],
        "stem.bias": before["stem.bias"][stream],
        "block0.conv1.weight": before["block0.conv1.weight"][middle][:, stream],
        "block0.conv1.bias": before["block0.conv1.bias"][middle],
        "block0.conv2.weight": before["block0.conv2.weight"][stream][:, middle],
        "block0.conv2.bias": before["block0.conv2.bias"][stream],
        "block1": np.zeros(0),  # nothing is left of it but its ReLU
        "head.weight": before["head.weight"][:, stream],
        "head.bias": before["head.bias"],
    }
    units = [unit("stem", 1, -0.5), unit("block0.conv1", 2, -200.0)]
    steps = [
        {"op": "shortcut", "layer": "block1.conv2", "kind": "zero", "dropped": []},
        {"op": "remove", "layer": "block0.conv1", "reader": "block0.conv2", "units": [2]},
        {
            "op": "stream",
            "writers": ["stem", "block0.conv2"],
            "readers": ["block0.conv1", "head"],
            "shifts": [],
            "units": [1],
        },
    ]
    return Files.make(tmp_path, residual(before), residual(product), units, steps)
