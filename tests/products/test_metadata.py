import json

import onnx
import pytest
from onnx import TensorProto, helper

from tinygrow.checkpoint import Checkpoint
from tinygrow.data.prepared import DataCard
from tinygrow.deploy.contract import KEYS
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.products.metadata import ABSOLUTE_PATH, build_metadata, digest, without_paths


def test_every_entry_but_the_digest(resnet: Checkpoint, card: DataCard) -> None:
    metadata = build_metadata("tiny", resnet, card, 71.25)
    assert set(metadata) == set(KEYS) - {"digest"}
    assert json.loads(metadata["classes"]) == list(card.classes)
    assert float(metadata["test_accuracy"]) == 71.25
    assert int(metadata["parameters"]) == count_parameters(resnet.network)
    assert int(metadata["multiply_adds"]) == count_multiply_adds(resnet.network, card.shape)
    assert json.loads(metadata["growth"])["growth"]["method"] == "tiny"
    assert set(json.loads(metadata["versions"])) == {"torch", "onnx", "onnxruntime"}


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("images of /data/me/birds.tar.gz, resized", "images of birds.tar.gz, resized"),
        (r"from C:\photos\birds, grey", "from birds, grey"),
        ("~/pictures/birds", "birds"),
        ("https://example.org/a/b and birds/train/x", "https://example.org/a/b and birds/train/x"),
        ("3/4 of 8/9/10 and/or more", "3/4 of 8/9/10 and/or more"),
    ],
)
def test_paths_are_cut_from_texts(text: str, cleaned: str) -> None:
    assert without_paths(text) == cleaned
    assert not ABSOLUTE_PATH.search(cleaned)


def test_digest_sees_names_shapes_and_values_but_not_order() -> None:
    def model(*tensors: onnx.TensorProto) -> onnx.ModelProto:
        return helper.make_model(helper.make_graph([], "g", [], [], initializer=tensors))

    a = helper.make_tensor("a", TensorProto.FLOAT, [2], [1.0, 2.0])
    b = helper.make_tensor("b", TensorProto.FLOAT, [1], [3.0])
    right = digest(model(a, b))
    assert digest(model(b, a)) == right
    raw = helper.make_tensor(
        "a", TensorProto.FLOAT, [2], onnx.numpy_helper.to_array(a).tobytes(), raw=True
    )
    assert digest(model(raw, b)) == right
    for other in (
        helper.make_tensor("c", TensorProto.FLOAT, [2], [1.0, 2.0]),
        helper.make_tensor("a", TensorProto.FLOAT, [2, 1], [1.0, 2.0]),
        helper.make_tensor("a", TensorProto.FLOAT, [2], [1.0, 2.5]),
    ):
        assert digest(model(other, b)) != right
