"""The checker accepts what is so, and refuses every single thing that is not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.closure import import_closure
from tests.certify.conftest import float32, highest
from tests.certify.files import Builder, Files, perceptron, residual, unit
from tinygrow.certify.check import CertificateVerdict, check_certificate
from tinygrow.errors import TinygrowError


def verdict(files: Files) -> CertificateVerdict:
    return check_certificate(*files.paths)


def test_what_is_so_is_accepted(dense: Files) -> None:
    found = verdict(dense)
    assert found.problems == ()
    assert found.counts() == {"checked": 5, "trusted": 0, "refused": 0}
    assert found.steps == {"remove": 2, "constant": 1, "merge": 1}
    assert all(u.in_float32 for u in found.units)


def test_a_residual_network_is_accepted(blocks: Files) -> None:
    found = verdict(blocks)
    assert found.problems == ()
    assert found.steps == {"shortcut": 1, "remove": 1, "stream": 1}


Change = Callable[[Files], None]


def _weight(name: str, place: tuple[int, ...], by: float = 1e-3) -> Change:
    def change(files: Files) -> None:
        files.product.weights[name] = files.product.weights[name].copy()
        files.product.weights[name][place] += by

    return change


def _unit(number: int, **values: object) -> Change:
    return lambda files: files.value["units"][number].update(values)


def _step(number: int, **values: object) -> Change:
    return lambda files: files.value["steps"][number].update(values)


def _without_step(number: int) -> Change:
    return lambda files: files.value["steps"].pop(number)


def _domain(**values: object) -> Change:
    return lambda files: files.value["domain"].update(values)


def _float_output(files: Files) -> None:
    files.product.node("Relu")


def _other_kernel(files: Files) -> None:
    node = next(n for n in files.product.nodes if n.op_type == "Gemm")
    node.attribute.append(node.attribute[0])
    node.attribute[-1].name, node.attribute[-1].i = "transA", 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_weight("layers.0.weight", (0, 0)), "layers.0.weight is not, bit by bit"),
        (_weight("layers.0.weight", (0, 0), 1e-7), "bit by bit"),
        (_weight("layers.1.weight", (0, 1)), "layers.1.weight is not what the steps make"),
        (_weight("layers.1.bias", (1,), 1e-4), "layers.1.bias is not what"),
        (_unit(0, bound=-8.0, margin=8.0), "tighter"),
        (_unit(0, margin=11.0), "do not fit"),
        (_unit(0, kind="active"), "do not fit"),
        (_unit(0, index=0), "it is not inactive"),
        (_unit(0, index=7), "layers.0 has 5 units"),
        (_unit(0, index=-1), "not a whole number"),
        (_unit(0, layer="layers.9"), "no layer 'layers.9'"),
        (_unit(1, method="hearsay"), "method of layers.0[2]"),
        (_unit(1, action="removed"), "was kept"),
        (_step(0, units=[0]), "layers.0[0] is not always 0"),
        (_step(0, units=[1, 1]), "twice"),
        (_step(0, reader="head"), "names the reader head"),
        (_step(0, op="trust_me"), "not known"),
        (_step(1, units=[2], values=[4.0]), "not always 4"),
        (_step(1, values=[3.4]), "not always 3.4"),
        (_step(2, units=[0], into=[2], coefficients=[[2.0]]), "merged, but may fall"),
        (_step(2, coefficients=[[2.01]]), "no combination"),
        (_step(2, coefficients=[[2.0, 1.0]]), "are needed"),
        (_step(2, coefficients=[["2"]]), "not a number"),
        (_without_step(3), "shape"),
        (_without_step(0), "shape"),
        (_domain(type="float"), "only uint8"),
        (_domain(shape=[1, 2, 3]), "shape"),
        (_domain(scale=[0.001]), "scale"),
        (_domain(shift=[[0.0]]), "shift"),
        (_float_output, "Relu where Gemm"),
        (_other_kernel, "other attributes"),
    ],
)
def test_what_is_not_so_is_refused(dense: Files, change: Change, why: str) -> None:
    change(dense)
    dense.write()
    assert why in " ".join(verdict(dense).problems)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_step(1, units=[1]), "block0.conv1[1] is not always 0"),
        (_step(2, units=[0]), "stem[0] is not always 0"),
        (_step(2, writers=["stem"]), "names the writers stem"),
        (_step(2, readers=["head"]), "names the readers head"),
        (_step(2, op="remove", layer="stem", reader="head"), "not the only layer"),
        (_step(0, layer="block0.conv2"), "is left out, but is not always"),
        (_without_step(0), "it is block0.conv2, block1.conv2, stem"),
        (_weight("block0.conv2.weight", (0, 0, 0, 0), 1e-6), "bit by bit"),
    ],
)
def test_a_residual_network_that_is_not_so_is_refused(
    blocks: Files, change: Change, why: str
) -> None:
    change(blocks)
    blocks.write()
    assert why in " ".join(verdict(blocks).problems)


@pytest.mark.parametrize("part", ["sha256", "initializers", "product"])
def test_other_files_are_refused(dense: Files, part: str) -> None:
    if part == "product":
        _weight("head.bias", (0,))(dense)
    elif part == "sha256":
        dense.value["before"]["sha256"] = "0" * 64
    else:
        dense.value["before"]["initializers"]["head.bias"] = "0" * 64
    dense.write(honest=False)
    assert "differ" in " ".join(verdict(dense).problems)


def test_a_unit_that_lives_at_the_border_alone_stays(blocks: Files) -> None:
    """With inputs of at least 1 a sum over nine of them beats a bias that four do not."""
    blocks.before.shift = 1.0
    for made in (blocks.before, blocks.product):
        made.weights["normalize.shift"][:] = 1
        made.weights["stem.weight"][0], made.weights["stem.bias"][0] = -1, 5
    blocks.value["domain"]["shift"] = [1.0]
    blocks.value["units"].append(unit("stem", 0, -4.0, "kept"))
    blocks.write()
    found = verdict(blocks)
    assert found.problems == ("stem[0]: it is not inactive: the bound is 1",)


def test_a_constant_stays_beside_padding(blocks: Files) -> None:
    """The zeros of a padding are not the constant, so that it fits into no bias."""
    blocks.before.weights["block0.conv1.weight"][2] = 0
    blocks.before.weights["block0.conv1.bias"][2] = 2
    blocks.value["units"][1] = unit("block0.conv1", 2, 2.0, "constant")
    blocks.value["steps"][1] |= {"op": "constant", "values": [2.0]}
    blocks.write()
    assert "padding of block0.conv2 is 0 beside it" in " ".join(verdict(blocks).problems)


def test_a_wholly_stable_layer_is_folded_and_a_living_one_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before = {
        "layers.0.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "layers.0.bias": np.full(3, 50, np.float32),
        "head.weight": rng.normal(size=(2, 3)).astype(np.float32),
        "head.bias": rng.normal(size=2).astype(np.float32),
    }
    w0, b0, w1, b1 = (v.astype(float) for v in before.values())
    after = {"head.weight": w1 @ w0, "head.bias": w1 @ b0 + b1}
    units = [
        unit("layers.0", i, 50 - float(np.abs(w0[i]).sum()) - 1e-5, "folded") for i in range(3)
    ]
    steps = [{"op": "fold", "layer": "layers.0", "reader": "head"}]
    files = Files.make(tmp_path, perceptron(before), perceptron(after), units, steps)
    assert verdict(files).problems == ()
    files.value["units"].pop()
    files.write()
    assert "not listed" in verdict(files).problems[0]
    files.before.weights["layers.0.bias"][1] = 0
    files.write()
    assert "its unit 1 is not stable" in " ".join(verdict(files).problems)


def test_a_constant_network_must_give_its_constant(tmp_path: Path, blocks: Files) -> None:
    before = {
        "layers.0.weight": np.ones((2, 4), np.float32),
        "layers.0.bias": np.full(2, -9, np.float32),
        "head.weight": np.ones((2, 2), np.float32),
        "head.bias": np.array([1, 2], np.float32),
    }
    after = {"head.weight": np.zeros((2, 1)), "head.bias": np.array([1.0, 2.0])}
    units = [unit("layers.0", i, -5.0) for i in range(2)]
    steps = [{"op": "constant_network", "layer": "head", "logits": [1.0, 2.0], "dropped": []}]
    files = Files.make(tmp_path, perceptron(before), perceptron(after), units, steps)
    assert verdict(files).problems == ()
    files.product.weights["head.bias"] = np.array([1.0, 2.1])
    files.write()
    assert "another constant" in verdict(files).problems[0]
    files.product.weights["head.weight"] = np.ones((2, 1))
    files.write()
    assert "should be zeros" in verdict(files).problems[0]
    blocks.value["steps"] = steps
    blocks.write()
    assert "may change" in " ".join(verdict(blocks).problems)


def test_a_solvers_word_is_trusted_unless_bounds_contradict_it(dense: Files) -> None:
    """A living unit that a solver calls dead is no more than trusted; a provably living one not."""
    word = {"method": "milp", "kind": "inactive", "bound": -1.0, "margin": 1.0, "action": "kept"}
    dense.value["units"].append({**unit("layers.0", 0, -1.0), **word})
    dense.write()
    found = verdict(dense)
    assert found.accepted
    assert found.counts() == {"checked": 5, "trusted": 1, "refused": 0}
    assert "rest on a solver's word" in " ".join(found.notes)
    dense.value["units"][1] |= {**word, "index": 2}
    dense.write()
    assert "it is not inactive" in " ".join(verdict(dense).problems)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"format": 1, "model": "toy"', "is not a certificate"),
        ('{"format": NaN}', "is not a certificate"),
        ('{"format": 1, "format": 1}', "stands twice"),
        ("[" * 100_000, "is not a certificate"),
        ("", "is not a certificate"),
    ],
)
def test_what_is_no_json_is_one_clear_error(dense: Files, text: str, why: str) -> None:
    dense.paths[0].write_text(text)
    with pytest.raises(TinygrowError, match=why):
        verdict(dense)


@pytest.mark.parametrize("value", [[], {"format": 2}, {"format": 1}, {"format": 1, "units": {}}])
def test_json_that_is_no_certificate_is_refused(dense: Files, value: object) -> None:
    dense.paths[0].write_text(json.dumps(value))
    assert not verdict(dense).accepted


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_or_broken_file_is_one_clear_error(dense: Files, number: int) -> None:
    path = dense.paths[number]
    path.write_bytes(b"\xff\x00 no file of that kind")
    with pytest.raises(TinygrowError, match=path.name):
        verdict(dense)
    path.unlink()
    with pytest.raises(TinygrowError, match="cannot be read"):
        verdict(dense)


def test_numbers_that_are_none_are_refused(dense: Files) -> None:
    text = dense.paths[0].read_text()
    dense.paths[0].write_text(text.replace('"slack": 0.0001', '"slack": 1e999', 1))
    assert "not a finite number" in verdict(dense).problems[0]
    dense.paths[0].write_text(text)
    dense.before.weights["head.bias"] = np.array([np.nan, 0])
    dense.write()
    assert "not finite" in verdict(dense).problems[0]


def test_huge_sizes_are_refused_before_memory_is_asked_for(dense: Files) -> None:
    import onnx

    model = onnx.load(str(dense.paths[1]))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40
    dense.paths[1].write_bytes(model.SerializeToString())
    assert "the input has the shape" in verdict(dense).problems[0]
    dense.write()
    model = onnx.load(str(dense.paths[1]))
    model.graph.initializer[2].dims[:] = [2**30, 2**30]
    dense.paths[1].write_bytes(model.SerializeToString())
    assert "has the shape" in verdict(dense).problems[0]


def test_it_shares_no_code_with_what_it_checks() -> None:
    """Its import closure holds nothing of the finder, the exporter or torch."""
    closure = {str(path) for path in import_closure(Path("tinygrow/certify/check.py"))}
    own = {path for path in closure if path.startswith("tinygrow/certify/")}
    assert closure - own == {"tinygrow/__init__.py", "tinygrow/errors.py"}
    texts = "".join(Path(path).read_text(encoding="utf-8") for path in own)
    for module in ("torch", "onnxruntime", "highspy", "scipy"):
        assert f"import {module}" not in texts and f"from {module}" not in texts


def test_residual_builder_has_a_relu_that_may_be_dropped(blocks: Files) -> None:
    """Two ReLUs in a row are one: the block that is gone leaves its own, or does not."""
    weights = {k: v for k, v in blocks.product.weights.items() if "constant" not in k}
    blocks.product = residual({k: v for k, v in weights.items() if k[0] in "sbh"})
    blocks.write()
    assert verdict(blocks).problems == ()


def test_terms_that_cancel_hide_no_unit_that_is_none_of_them(tmp_path: Path) -> None:
    """Of two equal rows, times 1e10 and -1e10, nothing is left but room for any other row."""
    weight, bias = float32(4, 4, seed=0), np.full(4, 20, np.float32)
    weight[1] = weight[0]
    read = float32(3, 4, seed=1)
    before = {
        "layers.0.weight": weight,
        "layers.0.bias": bias,
        "head.weight": read,
        "head.bias": np.zeros(3, np.float32),
    }
    lows = -highest(-weight, -bias, np.full(4, -1.0), np.full(4, 127 / 128))
    factor, kept = 1e10, [0, 1, 3]
    head = read.astype(float)
    head[:, 0], head[:, 1] = (
        head[:, 0] + factor * head[:, 2],
        head[:, 1] - factor * head[:, 2],
    )
    after = {
        "layers.0.weight": weight[kept],
        "layers.0.bias": bias[kept],
        "head.weight": head[:, kept],
        "head.bias": 20.0 * read[:, 2],
    }
    actions = {0: "kept", 1: "kept", 2: "merged"}
    units = [unit("layers.0", i, lows[i] - 1e-5, action) for i, action in actions.items()]
    step = {"op": "merge", "layer": "layers.0", "reader": "head", "units": [2], "into": [0, 1]}
    steps = [step | {"coefficients": [[factor, -factor]]}]
    files = Files.make(tmp_path, perceptron(before), perceptron(after), units, steps)
    assert "terms that cancel" in " ".join(verdict(files).problems)
    files.value["steps"][0]["coefficients"] = [[1e3, -1e3]]
    files.write()
    assert "no combination of the others" in " ".join(verdict(files).problems)


def test_a_dead_unit_that_is_also_read_beside_its_relu_stays(tmp_path: Path) -> None:
    """The sum of relu(z) and z is not 0 where z is below."""
    weight, bias = float32(3, 4, seed=0), np.array([-30, 0, 0], np.float32)
    read = float32(2, 3, seed=1)

    def network(kept: list[int]) -> Builder:
        made = Builder((1, 2, 2))
        made.flatten(4)
        before = made.dense("layers.0", weight[kept], bias[kept])
        made.node("Relu")
        made.node("Add", before)
        made.dense("head", read[:, kept], np.zeros(2, np.float32))
        return made

    top = highest(weight, bias, np.full(4, -1.0), np.full(4, 127 / 128))[0]
    ends = {"writers": ["layers.0"], "readers": ["head"], "shifts": []}
    steps = [{"op": "stream", **ends, "units": [0]}]
    files = Files.make(
        tmp_path, network([0, 1, 2]), network([1, 2]), [unit("layers.0", 0, top)], steps
    )
    assert "not always 0 where head reads it" in " ".join(verdict(files).problems)


def test_small_weights_beside_large_ones_are_compared_as_well(dense: Files) -> None:
    """A weight that was computed is what it should be to a share of itself, not of the largest."""
    name = "layers.1.weight"
    dense.product.weights[name] = dense.product.weights[name].copy()
    values = dense.product.weights[name]
    place = np.unravel_index(np.abs(values).argmin(), values.shape)
    assert abs(values[place]) < np.abs(values).max() / 3
    values[place] *= 1 + 3e-6
    dense.write()
    assert "is not what the steps make of it" in " ".join(verdict(dense).problems)
