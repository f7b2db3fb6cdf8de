"""The metadata of a model file: strings, without a path or a time among them."""

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from tinygrow import __version__
from tinygrow.checkpoint import Checkpoint
from tinygrow.data.prepared import DataCard
from tinygrow.deploy.contract import Contract
from tinygrow.networks.cost import count_multiply_adds, count_parameters

# Two or more components from a root or a drive; neither a URL nor a fraction such as 3/4.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w/:.~-])(?:~|/[\w.@+-]+)(?:/[\w.@+-]+)+|(?<!\w)[A-Za-z]:\\[^\s\"']+"
)


def build_metadata(
    name: str, checkpoint: Checkpoint, card: DataCard, test_accuracy: float
) -> dict[str, str]:
    """Return every metadata entry of `contract.KEYS` but the digest, which the file decides.

    They are those of the fp32 product; the others take them over and change `precision`.

    Args:
        name: of the model.
        checkpoint: as trained, before folding; its notes tell the growth history.
        card: of the data set it was trained on.
        test_accuracy: PyTorch's, in percent.
    """
    network, notes = checkpoint.network, checkpoint.notes
    history = {key: notes[key] for key in ("seed", "growth", "finetune") if key in notes}
    versions = {package: version(package) for package in ("torch", "onnx")}
    versions["onnxruntime"] = onnxruntime.__version__  # the package has two names
    return {
        "tinygrow_version": __version__,
        "model": name,
        "precision": "fp32",
        "data": card.name,
        "data_source": without_paths(card.source),
        "classes": json.dumps(list(card.classes), ensure_ascii=False),
        "input": contract_of(name, card).input_json(),
        "test_accuracy": repr(test_accuracy),
        "parameters": str(count_parameters(network)),
        "multiply_adds": str(count_multiply_adds(network, checkpoint.architecture.input_shape)),
        "growth": json.dumps(history, sort_keys=True),
        "versions": json.dumps(versions, sort_keys=True),
    }


def contract_of(name: str, card: DataCard) -> Contract:
    """Return the contract that a model of this data set must hold."""
    return Contract(
        model=name, classes=card.classes, shape=card.shape, mean=card.mean, std=card.std
    )


def without_paths(text: str) -> str:
    """Return `text` with each absolute path cut down to its last component."""
    return ABSOLUTE_PATH.sub(lambda found: _last(found.group()), text)


def digest(model: onnx.ModelProto) -> str:
    """Return the SHA-256 of the initialisers: names, types, shapes and bytes, by name."""
    total = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda t: t.name):
        values = numpy_helper.to_array(tensor)
        little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
        total.update(f"{tensor.name} {values.dtype.name} {values.shape}\n".encode())
        total.update(little.tobytes())
    return total.hexdigest()


def _last(path: str) -> str:
    return PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
