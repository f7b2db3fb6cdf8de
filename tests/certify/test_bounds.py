"""Bounds against images: what can be seen lies inside, and a linear layer's bounds are reached."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.certify.conftest import dense_weights, float32, residual_weights
from tests.certify.files import Builder, perceptron, residual
from tinygrow.certify.bounds import Bounds, input_box, propagate
from tinygrow.certify.document import Refusal
from tinygrow.certify.exact import exact_bounds
from tinygrow.certify.graph import Graph, read_graph


def bounds_of(made: Builder, folder: Path) -> tuple[Graph, Bounds]:
    graph, _ = read_graph(made.save(folder / "network.onnx"))
    name, box, _, _ = input_box(graph)
    return graph, propagate(graph, {name: box})


def values_of(
    graph: Graph, images: torch.Tensor, dtype: torch.dtype = torch.float64
) -> dict[str, torch.Tensor]:
    """Return every value of a graph by PyTorch: a second reading of ONNX."""
    weights = {k: torch.tensor(v) for k, v in graph.weights.items()}
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
    values = {graph.input: images}
    for o in graph.operations:
        x = values[o.inputs[0]]
        others = [weights[n] if n in weights else values[n] for n in o.inputs[1:]]
        a = o.attributes
        if o.kind == "Cast":
            y = x.to(dtype)
        elif o.kind == "Mul":
            y = x * others[0]
        elif o.kind == "Add":
            y = x + others[0]
        elif o.kind == "Relu":
            y = x.clamp(min=0)
        elif o.kind == "Gemm":
            y = F.linear(x, *others)
        elif o.kind == "Conv":
            top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
            y = F.conv2d(
                F.pad(x, (left, right, top, bottom)),
                *others,
                stride=a.get("strides", (1, 1)),
                dilation=a.get("dilations", (1, 1)),
                groups=a.get("group", 1),
            )
        elif o.kind == "AveragePool":
            y = F.avg_pool2d(
                x,
                a["kernel_shape"],
                a["strides"],
                a["pads"][:2],
                count_include_pad=bool(a.get("count_include_pad", 0)),
            )
        elif o.kind == "MaxPool":
            y = F.max_pool2d(x, a["kernel_shape"], a["strides"], a["pads"][:2])
        elif o.kind == "ReduceMean":
            y = x.mean(dim=(2, 3), keepdim=True)
        else:
            assert o.kind == "Reshape"
            y = x.flatten(1)
        values[o.output] = y
    return values


def pools_and_groups(seed: int) -> Builder:
    """Return a network of everything else that the checker knows."""
    made = Builder((2, 9, 8))
    made.weights["c.weight"], made.weights["c.bias"] = (
        float32(4, 1, 3, 2, seed=seed),
        float32(4, seed=seed + 1),
    )
    made.node(
        "Conv", "c.weight", "c.bias", group=2, strides=[2, 1], dilations=[1, 2], pads=[1, 0, 2, 1]
    )
    made.node("Relu")
    made.node("MaxPool", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    made.node("AveragePool", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 1, 0])
    made.convolution("d", float32(3, 4, 1, 1, seed=seed + 2), float32(3, seed=seed + 3), pad=0)
    made.weights["axes"] = np.array([-1, -2])
    made.node("ReduceMean", "axes")
    made.flatten(3)
    made.dense("head", float32(2, 3, seed=seed + 4), float32(2, seed=seed + 5))
    return made


def random_residual(seed: int) -> Builder:
    rng = np.random.default_rng(seed)
    weights = {k: rng.normal(size=v.shape) for k, v in residual_weights().items()}
    return residual({k: v.astype(np.float32) for k, v in weights.items()})


def random_perceptron(seed: int) -> Builder:
    rng = np.random.default_rng(seed)
    weights = {k: rng.normal(size=v.shape) for k, v in dense_weights().items()}
    return perceptron({k: v.astype(np.float32) for k, v in weights.items()})


@pytest.mark.parametrize("make", [random_perceptron, random_residual, pools_and_groups])
@pytest.mark.parametrize("seed", range(4))
def test_what_images_show_lies_inside(make, seed: int, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    graph, found = bounds_of(make(seed), tmp_path)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (400, *graph.shape), generator=generator)
    images[:200] = (images[:200] > 127) * 255
    values = values_of(graph, images)
    assert found.notes == ()
    for name, box in found.boxes.items():
        seen = values[name].numpy()
        assert seen.shape[1:] == box.lower.shape
        assert (seen >= box.lower).all() and (seen <= box.upper).all(), name


def test_bounds_of_the_first_layer_are_reached_exactly(tmp_path: Path) -> None:
    """In fractions: the bound is the largest value over the box, at most a rounding away."""
    graph, found = bounds_of(perceptron(dense_weights()), tmp_path)
    weight, bias = graph.weights["layers.0.weight"], graph.weights["layers.0.bias"]
    box = found.boxes[graph.layer("layers.0").output]
    low, high = Fraction(-1), Fraction(127, 128)
    for unit, row in enumerate(weight):
        ends = [(Fraction(float(w)) * low, Fraction(float(w)) * high) for w in row]
        top = sum(max(e) for e in ends) + Fraction(float(bias[unit]))
        bottom = sum(min(e) for e in ends) + Fraction(float(bias[unit]))
        assert top <= Fraction(float(box.upper[unit])) <= top + Fraction(1, 2**40)
        assert bottom >= Fraction(float(box.lower[unit])) >= bottom - Fraction(1, 2**40)


def test_whole_numbers_tell_zero_from_nearly_zero(tmp_path: Path) -> None:
    """Sums of thirds, against fractions: off by no more than the last place of a float64."""
    weights = dense_weights()
    row = np.float32(1) / np.array([3, 7, 11, 13], np.float32)
    weights["layers.0.weight"] = np.array([row, row, row[::-1], -row, 0 * row], np.float32)
    graph, found = bounds_of(perceptron(weights), tmp_path)
    name, box, _, _ = input_box(graph)
    exact = sum(Fraction(float(w)) for w in row) * Fraction(float(box.upper[0, 0, 0]))
    ends = exact_bounds(graph, name, box)[graph.layer("layers.0").output]
    for unit in (0, 1, 2):
        top = exact + Fraction(float(weights["layers.0.bias"][unit]))
        assert 0 <= Fraction(float(ends[1][unit])) - top < Fraction(1, 2**49)
    rough = found.boxes[graph.layer("layers.0").output]
    assert (rough.lower <= ends[0]).all() and (ends[1] <= rough.upper).all()
    assert (rough.lower[:4] < ends[0][:4]).all() and (ends[1][:4] < rough.upper[:4]).all()
    second = exact_bounds(graph, name, box)[graph.layer("layers.1").output]
    later = found.boxes[graph.layer("layers.1").output]
    assert (later.lower <= second[0]).all() and (second[1] <= later.upper).all()


def test_nothing_is_rounded_where_nothing_is_summed(tmp_path: Path) -> None:
    """A row of zeros gives its bias exactly; a channel of zeros stays exactly zero."""
    graph, found = bounds_of(residual(residual_weights()), tmp_path)
    box = found.boxes[graph.layer("stem").output]
    assert (box.lower[1] == -0.5).all() and (box.upper[1] == -0.5).all()
    for layer in ("block1.conv1", "head"):
        read = found.boxes[graph.layer(layer).inputs[0]]
        assert not read.lower[1].any() and not read.upper[1].any()


def test_float32_stays_within_the_drift(tmp_path: Path) -> None:
    """Pixels times 2^-7 less 1 are float32 numbers, so that all drift is of the network."""
    graph, found = bounds_of(random_residual(7), tmp_path)
    images = torch.randint(0, 256, (300, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    exact, rough = values_of(graph, images), values_of(graph, images, torch.float32)
    away = {name: (rough[name].double() - exact[name]).abs().amax(0).numpy() for name in exact}
    assert all((away[name] <= box.drift + 1e-12).all() for name, box in found.boxes.items())
    assert away[graph.output].max() > 0


def test_what_is_unknown_bounds_nothing_and_is_told(tmp_path: Path) -> None:
    made = perceptron(dense_weights())
    made.nodes[5].op_type = "Sigmoid"
    graph, found = bounds_of(made, tmp_path)
    assert "Sigmoid is not known" in found.notes[0]
    assert graph.layer("layers.1").output not in found.boxes


@pytest.mark.parametrize("pixel", [0, 1, 100, 254, 255])
def test_normalised_pixels_lie_in_the_box_in_either_precision(pixel: int, tmp_path: Path) -> None:
    made = perceptron(dense_weights())
    made.weights["normalize.scale"][:] = 0.0171247
    made.weights["normalize.shift"][:] = -2.117904
    graph, _ = read_graph(made.save(tmp_path / "network.onnx"))
    _, box, scale, shift = input_box(graph)
    x = np.float32(pixel)
    for value in (x * scale + shift, np.float64(x) * scale.astype(float) + shift.astype(float)):
        assert box.lower[0, 0, 0] <= value[0] <= box.upper[0, 0, 0]


def test_a_graph_that_begins_otherwise_is_refused(tmp_path: Path) -> None:
    made = perceptron(dense_weights())
    del made.nodes[1]
    made.nodes[1].input[0] = "v0"
    graph, _ = read_graph(made.save(tmp_path / "network.onnx"))
    with pytest.raises(Refusal, match="does not begin"):
        input_box(graph)
