"""Small ONNX files and certificates made by hand, with nothing of the code under test."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Weights = dict[str, np.ndarray]


@dataclass
class Builder:
    """Nodes of a graph, one after the other.

    Args:
        shape: of an image.
        scale: of all channels.
        shift: of all channels.
    """

    shape: tuple[int, int, int]
    scale: float = 2**-7  # times 255 it is a float32
    shift: float = -1.0
    weights: Weights = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    value: str = "images"

    def __post_init__(self) -> None:
        channels = (1, self.shape[0], 1, 1)
        self.weights["normalize.scale"] = np.full(channels, self.scale, np.float32)
        self.weights["normalize.shift"] = np.full(channels, self.shift, np.float32)
        self.node("Cast", to=1)
        self.node("Mul", "normalize.scale")
        self.node("Add", "normalize.shift")

    def node(self, kind: str, *others: str, **attributes: Any) -> str:
        """Add a node that reads the last value and others."""
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.value, *others], [output], **attributes))
        self.value = output
        return output

    def dense(self, path: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """Add a Gemm."""
        self.weights[f"{path}.weight"], self.weights[f"{path}.bias"] = weight, bias
        return self.node("Gemm", f"{path}.weight", f"{path}.bias", transB=1)

    def convolution(self, path: str, weight: np.ndarray, bias: np.ndarray, pad: int = 1) -> str:
        """Add a Conv."""
        self.weights[f"{path}.weight"], self.weights[f"{path}.bias"] = weight, bias
        sides = {"pads": [pad] * 4, "kernel_shape": list(weight.shape[2:])}
        return self.node("Conv", f"{path}.weight", f"{path}.bias", **sides)

    def flatten(self, size: int) -> str:
        """Add a Reshape to one row."""
        name = f"constant.{len(self.nodes)}"
        self.weights[name] = np.array([-1, size])
        return self.node("Reshape", name)

    def save(self, path: Path) -> Path:
        """Write the file."""
        tensors = [
            numpy_helper.from_array(
                np.ascontiguousarray(v.astype(np.int64 if v.dtype.kind == "i" else np.float32)), k
            )
            for k, v in self.weights.items()
        ]
        images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *self.shape])
        logits = helper.make_tensor_value_info(self.value, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "toy", [images], [logits], tensors)
        path.write_bytes(helper.make_model(graph).SerializeToString())
        return path


def perceptron(weights: Weights, shape: tuple[int, int, int] = (1, 2, 2)) -> Builder:
    """Return Gemm - ReLU for each `layers.N`, then `head`."""
    made = Builder(shape)
    made.flatten(int(np.prod(shape)))
    for path in dict.fromkeys(name.rpartition(".")[0] for name in weights):
        made.dense(path, weights[f"{path}.weight"], weights[f"{path}.bias"])
        if path != "head":
            made.node("Relu")
    return made


def residual(weights: Weights, shape: tuple[int, int, int] = (1, 4, 4)) -> Builder:
    """Return stem - ReLU - blocks (conv1 - ReLU - conv2, plus input, ReLU) - mean - head."""
    made = Builder(shape)
    made.convolution("stem", weights["stem.weight"], weights["stem.bias"])
    stream = made.node("Relu")
    for block in sorted({n.split(".")[0] for n in weights if n.startswith("block")}):
        if f"{block}.conv1.weight" in weights:
            for part in ("conv1", "conv2"):
                path = f"{block}.{part}"
                made.convolution(path, weights[f"{path}.weight"], weights[f"{path}.bias"])
                if part == "conv1":
                    made.node("Relu")
            made.node("Add", stream)
        stream = made.node("Relu")
    made.weights["axes"] = np.array([2, 3])
    made.node("ReduceMean", "axes", keepdims=1)
    made.flatten(weights["head.weight"].shape[1])
    made.dense("head", weights["head.weight"], weights["head.bias"])
    return made


def hashes(weights: Weights) -> dict[str, str]:
    """Return the hash of each float32 weight."""
    return {
        name: hashlib.sha256(value.astype("<f4").tobytes()).hexdigest()
        for name, value in weights.items()
        if value.dtype.kind == "f"
    }


def certificate(
    before: Path,
    made: Builder,
    product: Builder,
    units: list[dict[str, Any]],
    steps: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return a certificate of two networks."""
    return {
        "format": 1,
        "model": "toy",
        "domain": {
            "type": "uint8",
            "shape": list(made.shape),
            "scale": [float(np.float32(made.scale))] * made.shape[0],
            "shift": [float(np.float32(made.shift))] * made.shape[0],
        },
        "before": {
            "file": before.name,
            "sha256": hashlib.sha256(before.read_bytes()).hexdigest(),
            "initializers": hashes(made.weights),
        },
        "after": {"initializers": hashes(product.weights)},
        "units": units,
        "steps": steps,
        "counts": {},
    }


def unit(layer: str, index: int, bound: float, action: str = "removed") -> dict[str, Any]:
    """Return what a certificate says of a unit."""
    return {
        "layer": layer,
        "index": index,
        "kind": "inactive" if bound <= 0 else "active",
        "bound": bound,
        "method": "interval",
        "margin": abs(bound),
        "slack": 1e-4,
        "action": action,
    }


@dataclass
class Files:
    """The three files, and how to write them again with something changed."""

    folder: Path
    value: dict[str, Any]
    before: Builder
    product: Builder

    @classmethod
    def make(
        cls,
        folder: Path,
        before: Builder,
        product: Builder,
        units: list[dict[str, Any]],
        steps: list[dict[str, Any]],
    ) -> "Files":
        """Write all three."""
        path = before.save(folder / "uncompressed.onnx")
        files = cls(folder, certificate(path, before, product, units, steps), before, product)
        files.write()
        return files

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """Return certificate, network before and product."""
        names = ("certificate.json", "uncompressed.onnx", "fp32.onnx")
        return tuple(self.folder / name for name in names)  # type: ignore[return-value]

    def write(self, *, honest: bool = True) -> None:
        """Write again; `honest` brings the hashes up to date."""
        certificate_path, before, product = self.paths
        self.before.save(before)
        self.product.save(product)
        if honest:
            self.value["before"]["sha256"] = hashlib.sha256(before.read_bytes()).hexdigest()
            self.value["before"]["initializers"] = hashes(self.before.weights)
            self.value["after"]["initializers"] = hashes(self.product.weights)
        certificate_path.write_text(json.dumps(self.value))
