"""Stage `compress`: take out what provably never matters, and say so in a certificate."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline import params as parameters
from pipeline import paths
from tinygrow.certify.check import check_certificate
from tinygrow.checkpoint import load_checkpoint, require_fit, save_checkpoint
from tinygrow.data.prepared import DataCard, load_card, load_split
from tinygrow.files import write_bytes, write_json
from tinygrow.observer import Observer
from tinygrow.products.export import export_onnx
from tinygrow.settings.compress import CompressSettings
from tinygrow.settings.products import ExportSettings
from tinygrow.stability.certificate import certificate_of, figures_of
from tinygrow.stability.compress import Compressed, compress, left_whole


def run(name: str, *, observer: Observer) -> None:
    """Compress the model `name` without changing what it computes.

    That there is nothing to take out is a normal outcome.

    Args:
        name: of a block under `models` in `params.yaml`.
        observer: told of progress and of what was found.
    """
    values = parameters.read()
    settings = values.section(name, "compress", CompressSettings)
    export = values.section(name, "export", ExportSettings)
    data = paths.prepared(values.value(name, "data"))
    source = load_checkpoint(paths.finetuned(name))
    card = load_card(data)
    require_fit(source, card, paths.finetuned(name))
    images = load_split(data, "train").images
    generator = torch.Generator().manual_seed(values.value(name, "seed"))
    images = images[torch.randperm(len(images), generator=generator)]

    done = compress(source, card, images, settings, observer)
    done, certificate, before = _certified(name, done, card, settings, export)
    counts = certificate["counts"]
    save_checkpoint(
        paths.compressed(name), done.architecture, done.network, source.notes | {"compress": counts}
    )
    write_bytes(paths.uncompressed(name), before)
    write_json(paths.certificate(name), certificate)
    write_json(paths.compress_metrics(name), figures_of(certificate, done.stability.seconds))
    _tell(name, certificate, observer)


def _certified(
    name: str,
    done: Compressed,
    card: DataCard,
    settings: CompressSettings,
    export: ExportSettings,
) -> tuple[Compressed, dict[str, Any], bytes]:
    """Return a compression that the checker accepts, its certificate and the file before.

    A network of the user's may hold what the checker does not know: it goes on as it was.
    """
    before = _exported(name, done.folded, card, export)
    after = _exported(name, done.network, card, export) if done.rewritten.steps else before
    certificate = certificate_of(name, done, card, settings, before, after)
    refused = _refused(certificate, before, after)
    if refused and certificate["units"] + certificate["steps"]:
        reason = f"nothing is proved: the checker refuses the certificate ({refused})"
        done = left_whole(done, card, settings, reason)
        certificate = certificate_of(name, done, card, settings, before, before)
        refused = _refused(certificate, before, before)
    if refused:
        certificate["unchecked"] = refused
    return done, certificate, before


def _exported(name: str, network: nn.Module, card: DataCard, settings: ExportSettings) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        export_onnx(network, card, settings, {"model": name}, file)
        return file.read_bytes()


def _refused(certificate: dict[str, Any], before: bytes, after: bytes) -> str:
    """Return why the checker refuses a certificate; empty where it does not."""
    with tempfile.TemporaryDirectory() as folder:
        paths_ = [Path(folder) / name for name in ("certificate.json", "before.onnx", "after.onnx")]
        write_json(paths_[0], certificate)
        for path, content in zip(paths_[1:], (before, after), strict=True):
            path.write_bytes(content)
        return "; ".join(check_certificate(*paths_).problems[:2])


def _tell(name: str, certificate: dict[str, Any], observer: Observer) -> None:
    counts = certificate["counts"]
    before, after = (certificate[side]["parameters"] for side in ("before", "after"))
    observer.say(
        f"stable units: {counts['proved']} proved, {counts['refuted']} statements refuted,"
        f" {counts['unknown']} unknown"
    )
    for note in certificate["notes"]:
        observer.say(f"  {note}")
    if counts["removed"]:
        observer.say(
            f"{paths.compressed(name)}: {counts['removed']} units REMOVED, {before:,} ->"
            f" {after:,} parameters, the same function of every uint8 image"
        )
    else:
        observer.say(
            f"{paths.compressed(name)}: 0 units REMOVED: nothing in this network provably never"
            " matters, which is usual unless training makes units stable; it goes on as it is"
        )
