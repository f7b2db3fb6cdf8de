"""Stage `validate`: the gate. Its findings are written in any case; a failure stops all."""

import hashlib
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime

from pipeline import params as parameters
from pipeline import paths
from tinygrow.checkpoint import load_checkpoint, require_fit
from tinygrow.data.prepared import load_card, load_split
from tinygrow.errors import TinygrowError
from tinygrow.files import write_json
from tinygrow.machine import processor
from tinygrow.observer import Observer
from tinygrow.products.gate.check import Verdict
from tinygrow.products.gate.run import run_gate
from tinygrow.products.gate.subject import Subject
from tinygrow.products.latency import measure_latency
from tinygrow.settings.products import ExportSettings, ValidateSettings


def run(name: str, *, observer: Observer) -> None:
    """Put the ONNX file of the model `name` through the gate.

    Args:
        name: of a block under `models` in `params.yaml`.
        observer: told of each check.

    Raises:
        TinygrowError: a check failed; each is named with its reason.
    """
    values = parameters.read()
    data = paths.prepared(values.value(name, "data"))
    path = paths.onnx_model(name)
    if not path.is_file():
        raise TinygrowError(
            f"{path} does not exist; run the export stage (dvc repro export@{name})"
        )
    card, checkpoint = load_card(data), load_checkpoint(paths.finetuned(name))
    require_fit(checkpoint, card, paths.finetuned(name))
    test = load_split(data, "test")
    subject = Subject(
        path=path,
        name=name,
        opset=values.section(name, "export", ExportSettings).opset,
        network=checkpoint.network,
        card=card,
        images=test.images.numpy(),
        labels=test.labels.numpy(),
        settings=values.section(name, "validate", ValidateSettings),
        observer=observer,
    )
    verdict = run_gate(subject)
    write_json(paths.validation(name), verdict.to_dict())
    write_json(paths.sidecar(name), _sidecar(name, path, subject, verdict))
    if not verdict.passed:
        failures = "; ".join(check.line() for check in verdict.failures)
        raise TinygrowError(
            f"{path} does not pass the gate: {failures}; export it again from its checkpoint"
            f" (dvc repro -f export@{name}) or see {paths.validation(name)}"
        )


def _sidecar(name: str, path: Path, subject: Subject, verdict: Verdict) -> dict[str, Any]:
    checks = verdict.to_dict()["checks"]
    latency: list[dict[str, Any]] = []
    if verdict.passed:
        latency = [asdict(entry) for entry in measure_latency(path, subject.card.shape)]
    return {
        "model": name,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "validated": verdict.passed,
        "checks": {key: f"{c['status']} {c['reason']}".strip() for key, c in checks.items()},
        "accuracy": checks["accuracy"]["numbers"],
        "latency": latency,
        "machine": {
            "processor": processor(),
            "system": platform.system(),
            "onnxruntime": onnxruntime.__version__,
            "torch": version("torch"),
        },
    }
