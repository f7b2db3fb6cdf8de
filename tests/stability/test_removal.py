"""What is taken out of a network leaves the function as it is, and what must stay stays."""

import pytest
import torch
from torch import nn

from tests.growth.scenes import CARD
from tests.stability.removal import (
    SETTINGS,
    Valid,
    check_same,
    images,
    made,
    mlp,
    operations,
    plant,
    randomize,
    resnet,
    step,
)
from tinygrow.products.fold import fold_batch_norm
from tinygrow.stability.dependence import dependent_rows
from tinygrow.stability.found import LayerStability, Proof, Stability, Witnesses
from tinygrow.stability.rewrite import rewrite

# --- dead units


def test_dead_units_of_a_perceptron_go_and_all_other_weights_stay() -> None:
    network, architecture = mlp()
    plant(network.layers[0], 2, bias=-99.0)  # never fires
    plant(network.layers[0], 4, weight=0.0, bias=0.0)  # always 0
    plant(network.layers[1], 7, bias=-99.0)
    done = made(network, architecture, rewrites="deletions")
    assert [dict(s) for s in done.rewritten.steps] == [
        {"op": "remove", "layer": "layers.0", "reader": "layers.1", "units": [2, 4]},
        {"op": "remove", "layer": "layers.1", "reader": "layers.2", "units": [7]},
    ]
    check_same(done)
    kept = [0, 1, 3, 5, 6, 7, 8]
    state = done.network.state_dict()
    assert torch.equal(state["layers.0.weight"], network.layers[0].weight[kept])
    assert torch.equal(state["layers.1.weight"], network.layers[1].weight[:7][:, kept])
    assert set(done.rewritten.actions) == {("layers.0", 2), ("layers.0", 4), ("layers.1", 7)}


def test_a_flattened_map_loses_all_positions_of_a_dead_channel() -> None:
    network = randomize(Valid(), 1)
    with torch.no_grad():
        network.two.weight[3] = 0.0
    done = made(network)
    assert step(done, "remove") == {
        "op": "remove",
        "layer": "two",
        "reader": "three",
        "units": [3],
    }
    assert done.network.three.in_features == 16
    check_same(done)


def test_a_channel_that_is_dead_only_inside_of_the_map_stays() -> None:
    network, _ = resnet()
    conv = nn.Conv2d(3, 4, 3, padding=1)
    tail = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(128, 3))
    network = randomize(nn.Sequential(conv, *tail), 0)
    with torch.no_grad():
        # Pixels lie from -2 to 2: 27 of them give at least -54 + 50; at a corner only 12 are left.
        conv.weight[1], conv.bias[1] = 1.0, -30.0
        conv.weight[2], conv.bias[2] = 1.0, -54.5
    done = made(network)
    assert step(done, "remove")["units"] == [2]
    check_same(done)


def test_a_unit_that_float32_may_show_above_zero_stays() -> None:
    network, _ = mlp((4,))
    proofs = tuple(
        Proof(
            layer="layers.0",
            index=i,
            kind="inactive",
            bound=-m,
            method="interval",
            margin=m,
            slack=s,
        )
        for i, (m, s) in enumerate([(1e-3, 1e-4), (1e-5, 1e-4), (0.0, 0.0)])
    )
    layer = LayerStability(
        layer="layers.0",
        width=4,
        proved=proofs,
        refuted_inactive=(3,),
        refuted_active=(3,),
        unknown_inactive=(),
        unknown_active=(),
    )
    stability = Stability((layer,), {}, (), Witnesses(torch.zeros(0, *CARD.shape)))
    done = rewrite(fold_batch_norm(network), CARD, stability, SETTINGS)
    assert [s["units"] for s in done.steps] == [[0, 2]]


# --- residual networks


def test_a_blocks_dead_channels_go() -> None:
    network, architecture = resnet()
    plant(network.stages[0].block0.norm1, 1, bias=-99.0)
    plant(network.stages[0].block0.norm1, 3, weight=0.0, bias=-0.1)
    done = made(network, architecture)
    assert operations(done) == ["remove"]
    assert step(done, "remove")["units"] == [1, 3]
    check_same(done)


def test_a_channel_of_the_stream_goes_only_if_all_writers_agree() -> None:
    network, architecture = resnet()
    plant(network.stem[1], 2, weight=0.0, bias=-0.5)
    plant(network.stages[0].block0.norm2, 2, weight=0.0, bias=-0.25)
    assert "stream" not in operations(made(network, architecture))  # block1 still writes it
    plant(network.stages[0].block1.norm2, 2, weight=0.0, bias=0.0)
    done = made(network, architecture)
    found = step(done, "stream")
    assert found["units"] == [2]
    assert set(found["writers"]) == {
        "stem.0",
        "stages.0.block0.conv2",
        "stages.0.block1.conv2",
    }
    assert set(found["readers"]) == {
        "stages.0.block0.conv1",
        "stages.0.block1.conv1",
        "stages.1.transition.conv",
    }
    check_same(done)


def test_a_zero_branch_leaves_its_shortcut_behind_a_transition_and_its_relu() -> None:
    network, architecture = resnet()
    plant(network.stages[1].block0.norm2, slice(None), weight=0.0, bias=0.0)  # type: ignore[arg-type]
    done = made(network, architecture)
    found = step(done, "shortcut")
    assert (found["layer"], found["kind"]) == ("stages.1.block0.conv2", "zero")
    assert set(found["dropped"]) == {"stages.1.block0.conv1", "stages.1.block0.conv2"}
    check_same(done)
    # Without the ReLU after the sum the test would tell: the transition gives negative values.
    stages = done.folded.stages
    assert (stages[1].transition(stages[0](done.folded.stem(images().float()))) < 0).any()


def test_a_constant_branch_becomes_a_shift_that_narrows_with_the_stream() -> None:
    network, architecture = resnet()
    plant(network.stages[0].block1.norm1, slice(None), bias=-9999.0)  # type: ignore[arg-type]
    for norm in (network.stem[1], network.stages[0].block0.norm2):
        plant(norm, 0, weight=0.0, bias=-0.5)
    with torch.no_grad():
        network.stages[0].block1.norm2.bias.zero_()
        network.stages[0].block1.norm2.running_mean.zero_()
        network.stages[0].block1.conv2.bias.copy_(torch.tensor([-1.0, 0.5, 0.25, -0.125]))
    done = made(network, architecture)
    found = step(done, "shortcut")
    assert (found["layer"], found["kind"]) == ("stages.0.block1.conv2", "constant")
    stream = step(done, "stream")
    assert (stream["units"], stream["shifts"]) == ([0], ["stages.0.block1.conv2"])
    check_same(done)
    assert done.network.state_dict()["stages.0.block1.conv2.bias"].shape == (3, 1, 1)


# --- constant units


def test_a_constant_unit_goes_into_the_bias_where_nothing_is_padded() -> None:
    network = randomize(Valid(), 2)
    plant(network.one, 1, weight=0.0, bias=0.75)
    plant(network.three, 2, weight=0.0, bias=1.5)
    done = made(network)
    steps = [dict(s) for s in done.rewritten.steps if s["op"] == "constant"]
    assert [(s["layer"], s["units"], s["values"]) for s in steps] == [
        ("one", [1], [0.75]),
        ("three", [2], [1.5]),
    ]
    assert done.architecture.compressed["biased"] == ["two"]  # it had none
    check_same(done)


def test_a_constant_channel_stays_behind_zero_padding_and_that_is_said() -> None:
    network, architecture = resnet()
    plant(network.stages[0].block0.norm1, 1, weight=0.0, bias=0.5)
    done = made(network, architecture)
    assert operations(done) == []
    assert any("behind the zero padding of stages.0.block0.conv2" in n for n in done.notes)
    # Two of them are one: what the padding does to one, it does to the other.
    plant(network.stages[0].block0.norm1, 3, weight=0.0, bias=0.25)
    done = made(network, architecture)
    assert operations(done) == ["merge"]
    check_same(done)


# --- dependent and wholly stable layers


@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_dependent_active_units_are_merged(bias: float) -> None:
    network, architecture = mlp()
    first = network.layers[0]
    for unit in (1, 3, 6):
        plant(first, unit, bias=99.0)
    with torch.no_grad():
        first.weight.copy_((first.weight * 64).round() / 64)  # so that float32 holds the sum
        first.weight[6] = 2 * first.weight[1] - 0.5 * first.weight[3]
        first.bias[6] += bias
    done = made(network, architecture)
    found = step(done, "merge")
    assert len(found["units"]) == 1 and set(found["into"]) < {1, 3, 6}
    assert found["residual"] < 1e-14
    check_same(done)


def test_active_units_beyond_the_inputs_that_are_left_are_merged() -> None:
    network, architecture = mlp((6, 8))
    for unit in range(3):
        plant(network.layers[0], unit, bias=-99.0)
    for unit in range(5):
        plant(network.layers[1], unit, bias=999.0)
    done = made(network, architecture)
    assert operations(done) == ["remove", "merge"]
    assert len(step(done, "merge")["units"]) == 2  # five rows of three numbers
    check_same(done)


def test_dependent_channels_are_merged_behind_padding_only_with_their_biases() -> None:
    network, architecture = resnet()
    conv, norm = network.stages[0].block0.conv1, network.stages[0].block0.norm1
    with torch.no_grad():
        norm.weight.fill_(1.0), norm.running_mean.zero_(), norm.running_var.fill_(1.0 - norm.eps)
        norm.bias.zero_()
        conv.weight[2], conv.weight[4] = 2 * conv.weight[1], 2 * conv.weight[0]
        conv.bias[1], conv.bias[2] = 64.0, 128.0
        conv.bias[0], conv.bias[4] = 64.0, 129.0
    done = made(network, architecture)
    found = step(done, "merge")
    assert {*found["units"], *found["into"]} == {0, 1, 2, 4}
    assert len(found["units"]) == 1 and found["units"][0] in (1, 2)
    check_same(done)


def test_large_coefficients_and_large_residuals_are_refused() -> None:
    rows = torch.eye(3, 5, dtype=torch.float64)
    near = rows[0] + 1e-3 * rows[1]
    matrix = torch.stack([rows[0], near, rows[1], 2 * rows[0] + rows[2], rows[2]])
    found = dependent_rows(matrix, 1e-9, 100.0)
    assert (len(found.basis), len(found.rows)) == (3, 2)
    error = found.coefficients @ matrix[list(found.basis)] - matrix[list(found.rows)]
    assert float(error.abs().max()) < 1e-12
    # With only the two nearly parallel rows to combine, the third needs a coefficient of 1000.
    sharp = torch.stack([rows[0], rows[0] + 1e-6 * rows[1], rows[1]])
    assert all(abs(c) <= 10 for c in dependent_rows(sharp, 1e-9, 10.0).coefficients.flatten())
    assert not dependent_rows(torch.stack([rows[0], near]), 1e-9, 100.0).rows
    assert dependent_rows(torch.stack([rows[0], near]), 0.1, 100.0).rows
    assert not dependent_rows(torch.stack([rows[0], near]), 0.1, 0.5).rows


def test_a_stable_dense_layer_is_folded_into_the_next() -> None:
    network, architecture = mlp((5, 6, 4))
    network.layers[1].bias.data.fill_(99.0)
    plant(network.layers[1], 2, bias=-99.0)
    done = made(network, architecture)
    assert operations(done) == ["remove", "fold"]
    assert step(done, "fold") == {"op": "fold", "layer": "layers.1", "reader": "layers.2"}
    assert "layers.1.weight" not in done.network.state_dict()
    check_same(done)


def test_an_affine_bottleneck_is_not_folded_into_something_larger() -> None:
    network, architecture = mlp((20, 2, 20))
    second, third = network.layers[1], network.layers[2]
    second.bias.data.fill_(99.0)
    third.bias.data -= third.weight.data @ second.bias.data
    done = made(network, architecture)
    assert operations(done) == []
    assert any("would be larger" in note for note in done.notes)


def test_a_dead_layer_makes_a_constant_network() -> None:
    network, architecture = mlp()
    network.layers[1].bias.data.fill_(-999.0)
    done = made(network, architecture)
    assert operations(done) == ["constant_network"]
    found = done.network(images().float())
    assert torch.equal(found, found[:1].expand_as(found))
    assert {name: tuple(v.shape) for name, v in done.network.state_dict().items()} == {
        "head.weight": (3, 1),
        "head.bias": (3,),
    }
    check_same(done)
