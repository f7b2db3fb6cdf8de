"""Stage `validate`: the gate for each candidate. What passes is published; findings always are."""

import hashlib
import json
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
from tinygrow.files import atomic_folder, write_bytes, write_json
from tinygrow.machine import processor
from tinygrow.observer import Observer
from tinygrow.products.gate.before import Before
from tinygrow.products.gate.check import Verdict, judge
from tinygrow.products.gate.run import run_gate
from tinygrow.products.gate.subject import Subject
from tinygrow.products.latency import measure_latency
from tinygrow.settings.products import ExportSettings, Precision, ValidateSettings


def run(name: str, *, observer: Observer) -> None:
    """Put the ONNX files of the model `name` through the gate.

    Args:
        name: of a block under `models` in `params.yaml`.
        observer: told of each check.

    Raises:
        TinygrowError: a product that is required did not pass; its checks are named with reasons.
    """
    values = parameters.read()
    data = paths.prepared(values.value(name, "data"))
    if not paths.exported(name, "fp32").is_file():
        raise TinygrowError(
            f"{paths.exported(name, 'fp32')} does not exist; run the export stage"
            f" (dvc repro export@{name})"
        )
    card, checkpoint = load_card(data), load_checkpoint(paths.compressed(name))
    require_fit(checkpoint, card, paths.compressed(name))
    before = Before(
        trained=load_checkpoint(paths.finetuned(name)).network,
        certificate=paths.certificate(name),
        uncompressed=paths.uncompressed(name),
    )
    test = load_split(data, "test")
    export = values.section(name, "export", ExportSettings)
    settings = values.section(name, "validate", ValidateSettings)
    subject = Subject(
        path=paths.exported(name, "fp32"),
        precision="fp32",
        name=name,
        opset=export.opset,
        network=checkpoint.network,
        card=card,
        images=test.images.numpy(),
        labels=test.labels.numpy(),
        settings=settings,
        observer=observer,
        before=before,
    )
    verdicts: dict[Precision, Verdict] = {}
    with atomic_folder(paths.products_folder(name)) as folder:
        # What is required but not exported is looked for as well, and refused with the reason.
        for precision in dict.fromkeys((*export.precisions, *settings.required)):
            subject = subject.sibling(paths.exported(name, precision), precision)
            observer.say(f"{precision}:")
            verdict = _not_made(name, precision) or run_gate(subject)
            verdicts[precision] = verdict
            if verdict.passed:
                # The very bytes that the checks saw.
                write_bytes(folder / paths.product(name, precision).name, subject.content)
            told = _sidecar(name, precision, subject, verdict)
            write_json(folder / paths.sidecar(name, precision).name, told)
    table = _table(verdicts, settings)
    write_json(paths.validation(name), table)
    for precision, entry in table["products"].items():
        said = "published" if entry["published"] else f"refused: {entry['reason']}"
        observer.say(f"{paths.product(name, precision)}: {said}")
    if not table["passed"]:
        failures = "; ".join(
            f"{paths.exported(name, precision)} does not pass the gate: {entry['reason']}"
            for precision, entry in table["products"].items()
            if entry["required"] and not entry["published"]
        )
        raise TinygrowError(
            f"{failures}; export it again from its checkpoint (dvc repro -f export@{name}) or see"
            f" {paths.validation(name)}"
        )


def _not_made(name: str, precision: Precision) -> Verdict | None:
    """Return the refusal of a candidate that is not there, with the reason of the export stage."""
    if paths.exported(name, precision).is_file():
        return None
    reason = f"{paths.exported(name, precision)} does not exist; name it in export.precisions"
    if paths.export_failures(name).is_file():
        failures = json.loads(paths.export_failures(name).read_text(encoding="utf-8"))
        reason = failures.get(precision, reason)
    return Verdict((judge("file", [reason]),))


def _table(verdicts: dict[Precision, Verdict], settings: ValidateSettings) -> dict[str, Any]:
    products = {
        precision: {
            "required": precision in settings.required,
            "published": verdict.passed,
            "reason": "; ".join(check.line() for check in verdict.failures),
            **verdict.to_dict(),
        }
        for precision, verdict in verdicts.items()
    }
    passed = all(entry["published"] for entry in products.values() if entry["required"])
    return {"passed": passed, "products": products}


def _sidecar(name: str, precision: Precision, subject: Subject, verdict: Verdict) -> dict[str, Any]:
    checks = verdict.to_dict()["checks"]
    content = subject.content if subject.path.is_file() else b""
    latency: list[dict[str, Any]] = []
    if verdict.passed:
        latency = [asdict(entry) for entry in measure_latency(subject.path, subject.card.shape)]
    return {
        "model": name,
        "precision": precision,
        "file": Path(paths.product(name, precision)).name,
        "sha256": hashlib.sha256(content).hexdigest() if content else "",
        "bytes": len(content),
        "validated": verdict.passed,
        "reason": "; ".join(check.line() for check in verdict.failures),
        "checks": {key: f"{c['status']} {c['reason']}".strip() for key, c in checks.items()},
        "accuracy": _numbers(checks, "accuracy"),
        "agreement": _numbers(checks, "agreement"),
        "calibration": _numbers(checks, "calibration"),
        "compression": _compression(name, precision, checks),
        "latency": latency,
        "machine": {
            "processor": processor(),
            "system": platform.system(),
            "onnxruntime": onnxruntime.__version__,
            "torch": version("torch"),
        },
    }


def _compression(name: str, precision: Precision, checks: dict[str, Any]) -> dict[str, Any]:
    """Return what is claimed of the product beside the network before compression."""
    certified = precision == "fp32" and checks.get("certificate", {}).get("status") == "passed"
    told = {
        "certified": certified,
        "said": "certified: the same function of every uint8 image as before compression"
        if certified
        else "not certified"
        if precision == "fp32"
        else "derived from the fp32 product, not certified",
    }
    content = paths.certificate(name).read_bytes()
    told["certificate_sha256"] = hashlib.sha256(content).hexdigest()
    return {**told, **json.loads(content)["counts"]}


def _numbers(checks: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what a check measured; nothing where it did not run."""
    numbers: dict[str, Any] = checks.get(name, {}).get("numbers", {})
    return numbers
