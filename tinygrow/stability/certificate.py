"""The certificate of a compression, as plain data: what was proved, and what was done about it.

`tinygrow.certify` checks it, and shares no code with what is here.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from tinygrow import __version__
from tinygrow.data.prepared import DataCard
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.products.export import normalization
from tinygrow.settings.compress import CompressSettings
from tinygrow.stability.compress import Compressed
from tinygrow.stability.found import Line, Proof, Stability

FORMAT = 1


def certificate_of(
    name: str,
    compressed: Compressed,
    card: DataCard,
    settings: CompressSettings,
    before: bytes,
    after: bytes,
) -> dict[str, Any]:
    """Return the certificate, for JSON.

    Args:
        name: of the model.
        compressed: what it is about.
        card: of the data, which fixes the domain.
        settings: that led there.
        before: the ONNX file of the network before.
        after: the same of the network after, whose weights are those of the product.
    """
    scale, shift = normalization(card)
    done = compressed.rewritten
    value: dict[str, Any] = {
        "format": FORMAT,
        "model": name,
        "tinygrow": __version__,
        "domain": {
            "type": "uint8",
            "shape": list(card.shape),
            "scale": scale.flatten().tolist(),
            "shift": shift.flatten().tolist(),
        },
        "before": {
            "file": "uncompressed.onnx",
            "sha256": hashlib.sha256(before).hexdigest(),
            **_side(compressed.folded, card, before),
        },
        "after": _side(compressed.network, card, after),
        "units": _units(compressed),
        "steps": [dict(step) for step in done.steps],
        "layers": _layers(compressed),
        "counts": compressed.stability.counts() | {"removed": len(done.actions)},
        "notes": list(compressed.notes),
        "settings": asdict(settings),
        "versions": {package: version(package) for package in ("torch", "numpy", "onnx")},
    }
    if compressed.stability.lines:
        value["crown"] = _lines(compressed.stability)
    return value


def weight_hashes(model: onnx.ModelProto) -> dict[str, str]:
    """Return the SHA-256 of the little-endian bytes of each float32 initialiser, by its name."""
    return {
        tensor.name: hashlib.sha256(
            np.ascontiguousarray(numpy_helper.to_array(tensor)).astype("<f4").tobytes()
        ).hexdigest()
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }


def figures_of(certificate: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return the flat figures of a compression."""
    before, after = certificate["before"], certificate["after"]
    return {
        **certificate["counts"],
        "parameters_before": before["parameters"],
        "parameters": after["parameters"],
        "multiply_adds_before": before["multiply_adds"],
        "multiply_adds": after["multiply_adds"],
        "seconds": round(sum(seconds.values()), 3),
    }


def _side(network: torch.nn.Module, card: DataCard, file: bytes) -> dict[str, Any]:
    return {
        "initializers": weight_hashes(onnx.load_model_from_string(file)),
        "parameters": count_parameters(network),
        "multiply_adds": count_multiply_adds(network, card.shape),
    }


def _units(compressed: Compressed) -> list[dict[str, Any]]:
    """Return what was proved, one statement a unit, and what else is gone because it is constant.

    A unit that is always 0 is proved to be on both sides: it counts as inactive.
    """
    proofs: dict[tuple[str, int], Proof] = {}
    for found in compressed.stability.layers:
        for proof in found.proved:
            place = (proof.layer, proof.index)
            if place not in proofs or proof.kind == "inactive":
                proofs[place] = proof
    actions = compressed.rewritten.actions
    units = [
        asdict(proof) | {"action": actions.get(place, "kept")} for place, proof in proofs.items()
    ]
    for (layer, index), value in compressed.rewritten.constants.items():
        if (layer, index) in actions and (layer, index) not in proofs:
            kind, size = "constant" if value else "zero", abs(value)
            unit = {"layer": layer, "index": index, "kind": kind, "bound": value, "margin": size}
            proved = {"method": "interval", "slack": 0.0}
            units.append(unit | proved | {"action": actions[layer, index]})
    return units


def _layers(compressed: Compressed) -> list[dict[str, Any]]:
    """Return what was found of each layer, in numbers."""
    gone = Counter(layer for layer, _ in compressed.rewritten.actions)
    return [
        {
            "layer": found.layer,
            "units": found.width,
            "inactive": len(found.stable("inactive")),
            "active": len({*found.stable("active")} - {*found.stable("inactive")}),
            "refuted": len(found.unstable),
            "unknown": len({*found.unknown_inactive, *found.unknown_active}),
            "removed": gone[found.layer],
        }
        for found in compressed.stability.layers
    ]


def _lines(stability: Stability) -> dict[str, Any]:
    """Return what proofs of method `crown` are checked by (`tinygrow.stability.found.Line`)."""
    slopes = {
        name: {"rising": _base64(s.rising, "<f4"), "resting": _base64(s.resting, "<f4")}
        for name, s in stability.slopes.items()
    }
    return {"slopes": slopes, "lines": [_line(line) for line in stability.lines]}


def _line(line: Line) -> dict[str, Any]:
    value: dict[str, Any] = {
        "layer": line.layer,
        "unit": line.unit,
        "position": line.position,
        "side": line.side,
        "bound": line.bound,
        "constant": line.constant,
    }
    if line.coefficients is not None:
        value["coefficients"] = _base64(line.coefficients, "<f8")
    return value


def _base64(values: torch.Tensor, kind: str) -> str:
    """Return numbers as text: little-endian, in the order in which they lie."""
    return base64.b64encode(values.detach().numpy().astype(kind).tobytes()).decode("ascii")
