"""Linear bounds: sound with whatever slopes are shipped, and as tight as those allow."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.certify.files import Files, perceptron, unit
from tests.certify.test_bounds import (
    bounds_of,
    pools_and_groups,
    random_perceptron,
    random_residual,
    values_of,
)
from tinygrow.certify.bounds import input_box
from tinygrow.certify.check import check_certificate
from tinygrow.certify.document import Refusal
from tinygrow.certify.lines import Tightened, _named, check_lines


def encoded(values: np.ndarray, kind: str = "<f4") -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()


def line(layer: str, number: int, positions: int, side: str, bound: float) -> dict[str, Any]:
    return {
        "layer": layer,
        "unit": number // positions,
        "position": number % positions,
        "side": side,
        "bound": bound,
        "constant": 0.0,
    }


def all_lines(made, folder: Path, seed: int | None):  # type: ignore[no-untyped-def]
    """Bound every number of every layer and sum; slopes are random, or the checker's own."""
    graph, found = bounds_of(made, folder)
    image, _, _, _ = input_box(graph)
    rng = np.random.default_rng(seed)
    slopes, lines = {}, []
    for name, value in _named(graph).items():
        box = found.boxes[value]
        positions = box.lower[0].size
        if seed is not None:
            sides = (rng.uniform(-0.5, 1.5, box.lower.size) for _ in range(2))
            slopes[name] = dict(zip(("rising", "resting"), map(encoded, sides), strict=True))
        for side, bound in (("upper", 1e9), ("lower", -1e9)):
            lines += [line(name, i, positions, side, bound) for i in range(box.lower.size)]
    return graph, found, check_lines(graph, image, found, {"slopes": slopes, "lines": lines})


@pytest.mark.parametrize("make", [random_perceptron, random_residual, pools_and_groups])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_any_slopes_are_sound(make, seed: int | None, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    graph, _, found = all_lines(make(seed or 5), tmp_path, seed)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (300, *graph.shape), generator=generator)
    images[:150] = (images[:150] > 127) * 255
    values = values_of(graph, images)
    assert found.problems == []
    for value, (lower, upper) in found.pairs().items():
        seen = values[value].numpy()
        assert (seen <= upper).all() and (seen >= lower).all()
        assert np.isfinite(upper).all() and np.isfinite(lower).all()


def test_lines_of_an_affine_network_are_exact(tmp_path: Path) -> None:
    """Where all units are active, the bound is the largest value of the composed map."""
    made = random_perceptron(3)
    made.weights["layers.0.bias"] = np.full(5, 50, np.float32)
    made.weights["layers.1.bias"] = np.full(3, 900, np.float32)
    graph, _, found = all_lines(made, tmp_path, None)
    weights = [made.weights[f"{name}.weight"].astype(float) for name in ("layers.0", "layers.1")]
    biases = [made.weights[f"{name}.bias"].astype(float) for name in ("layers.0", "layers.1")]
    matrix, bias = weights[1] @ weights[0], weights[1] @ biases[0] + biases[1]
    top = np.maximum(matrix * -1, matrix * 127 / 128).sum(axis=1) + bias
    upper = found.upper[graph.layer("layers.1").output]
    assert (upper >= top - 1e-12).all()
    assert upper == pytest.approx(top, abs=1e-9)


def cancelling(tmp_path: Path, crown: dict[str, Any] | None) -> Files:
    """Two equal active units, whose difference less 0.5 intervals cannot bound."""
    before = {
        "layers.0.weight": np.ones((2, 4), np.float32),
        "layers.0.bias": np.full(2, 5, np.float32),
        "layers.1.weight": np.array([[1, -1], [1, 0]], np.float32),
        "layers.1.bias": np.array([-0.5, 0.25], np.float32),
        "head.weight": np.ones((2, 2), np.float32),
        "head.bias": np.zeros(2, np.float32),
    }
    after = dict(before)
    after["layers.1.weight"], after["layers.1.bias"] = (
        before["layers.1.weight"][1:],
        np.array([0.25]),
    )
    after["head.weight"] = before["head.weight"][:, 1:]
    claim = unit("layers.1", 0, -0.5 + 1e-9) | {"method": "crown"}
    steps = [{"op": "remove", "layer": "layers.1", "reader": "head", "units": [0]}]
    files = Files.make(tmp_path, perceptron(before), perceptron(after), [claim], steps)
    if crown is not None:
        files.value["crown"] = crown
    files.write()
    return files


def shipped(**changes: Any) -> dict[str, Any]:
    ones = encoded(np.ones(2))
    slopes = {"layers.0": {"rising": ones, "resting": ones}}
    coefficients = encoded(np.zeros(4), "<f8")
    only = line("layers.1", 0, 1, "upper", -0.5 + 1e-9) | {"coefficients": coefficients}
    return {"slopes": slopes, "lines": [only | changes]}


def test_a_line_proves_what_intervals_cannot(tmp_path: Path) -> None:
    found = check_certificate(*cancelling(tmp_path, shipped()).paths)
    assert found.problems == ()
    assert found.units[0].word == "checked"
    assert found.units[0].bound == pytest.approx(-0.5, abs=1e-9)
    assert "1 linear bounds were recomputed" in found.notes[0]


@pytest.mark.parametrize(
    ("crown", "why"),
    [
        (None, "it is not inactive: the bound is 7.4"),
        (shipped(bound=-0.6), "tighter than"),
        (shipped(coefficients=encoded(np.full(4, 0.1), "<f8")), "other coefficients"),
        (shipped(coefficients=encoded(np.zeros(3), "<f8")), "other coefficients"),
        (shipped(coefficients="no base64!"), "base64"),
        (shipped(coefficients=encoded(np.full(4, np.nan), "<f8")), "not finite"),
        (shipped(unit=2), "does not have"),
        (shipped(layer="layers.7"), "no layer"),
        (shipped(side="inner"), "neither upper nor lower"),
        (shipped(unit=1), "it is not inactive"),
        ({"lines": {}}, "no list"),
    ],
)
def test_lines_that_are_not_so_are_refused(
    crown: dict[str, Any] | None, why: str, tmp_path: Path
) -> None:
    found = check_certificate(*cancelling(tmp_path, crown).paths)
    assert why in " ".join(found.problems)


def test_slopes_that_prove_less_prove_nothing_false(tmp_path: Path) -> None:
    zero = encoded(np.zeros(2))
    crown = shipped(bound=100.0)
    crown["slopes"] = {"layers.0": {"rising": zero, "resting": zero}}
    del crown["lines"][0]["coefficients"]
    found = check_certificate(*cancelling(tmp_path, crown).paths)
    assert "it is not inactive" in " ".join(found.problems)


def test_endless_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinygrow.certify.lines.MOST", 10)
    graph, found = bounds_of(random_perceptron(0), tmp_path)
    lines = [line("layers.1", 0, 1, "upper", 0.0)]
    with pytest.raises(Refusal, match="more lines than"):
        check_lines(graph, input_box(graph)[0], found, {"lines": lines})
    assert Tightened().pairs() == {}
