"""The model repository keeps Triton's published schema and fits the files in it."""

import importlib.util
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import onnxruntime as ort
import pytest
from google.protobuf import text_format

from pipeline import package
from tests.deploy.conftest import contract_of
from tests.report.product import CLASSES
from tinygrow.observer import Observer
from tinygrow.package.triton import config, labels


@pytest.fixture(scope="module")
def schema() -> ModuleType:
    """Return the classes of `model_config.proto` as Triton's client publishes them.

    The file is loaded by itself: the package around it needs gRPC.
    """
    files = metadata.files("tritonclient") or []
    path = next(
        file for file in files if file.name == "model_config_pb2.py" and "grpc" in file.parts
    )
    spec = importlib.util.spec_from_file_location("model_config_pb2", path.locate())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(schema: ModuleType, text: str) -> Any:
    return text_format.Parse(text, schema.ModelConfig())


def test_the_repository_fits_its_models(workspace: Path, schema: ModuleType) -> None:
    folder = package.run("toy", triton=True, observer=Observer()) / "triton"
    for precision in ("fp32", "int8"):
        place = folder / f"toy_{precision}"
        found = parse(schema, (place / "config.pbtxt").read_text())
        assert found.name == place.name  # Triton refuses another name than the folder's
        assert found.backend == "onnxruntime"
        assert [entry.name for entry in place.iterdir() if entry.is_dir()] == ["1"]
        session = ort.InferenceSession(
            place / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        (given,), (gives,) = session.get_inputs(), session.get_outputs()
        (taken,), (made,) = found.input, found.output
        assert (taken.name, made.name) == (given.name, gives.name)
        # With max_batch_size above 0, dims leave the batch out.
        assert found.max_batch_size >= 1
        assert list(taken.dims) == given.shape[1:]
        assert list(made.dims) == gives.shape[1:]
        assert taken.data_type == schema.TYPE_UINT8 and given.type == "tensor(uint8)"
        assert made.data_type == schema.TYPE_FP32 and gives.type == "tensor(float)"
        names = (place / made.label_filename).read_text().splitlines()
        assert names == list(CLASSES)
        assert found.HasField("dynamic_batching")
        (warm_up,) = found.model_warmup
        assert warm_up.batch_size == found.max_batch_size
        assert list(warm_up.inputs[given.name].dims) == list(taken.dims)


def test_int8_is_for_processors(schema: ModuleType) -> None:
    kinds = schema.ModelInstanceGroup
    for precision, kind in (("fp32", kinds.KIND_AUTO), ("int8", kinds.KIND_CPU)):
        found = parse(schema, config("m", precision, contract_of((3, 8, 8))))
        assert [group.kind for group in found.instance_group] == [kind]


def test_the_schema_would_tell_a_mistake(schema: ModuleType) -> None:
    text = config("m", "fp32", contract_of((3, 8, 8)))
    with pytest.raises(text_format.ParseError, match="dynamic_batch"):
        parse(schema, text.replace("dynamic_batching", "dynamic_batch"))


def test_names_with_quotes_and_lines(schema: ModuleType) -> None:
    found = parse(schema, config('a"b\\c', "fp32", contract_of((3, 8, 8))))
    assert found.name == 'a"b\\c'
    assert labels(contract_of((3, 8, 8))) == "dark\ngrey\nbright\n"
