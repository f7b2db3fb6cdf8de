"""Which products of a model there are to use, by what the verdicts beside them say."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrow.errors import TinygrowError
from tinygrow.settings.products import PRECISIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A product that passed the gate.

    Attributes:
        precision: `fp32`, `fp16` or `int8`.
        path: of its .onnx file.
        sidecar_path: of the verdicts.
        sidecar: what they say: `sha256`, `accuracy`, `checks`, `latency` and more.
    """

    precision: str
    path: Path
    sidecar_path: Path
    sidecar: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Checksum of the file that the gate saw."""
        return str(self.sidecar["sha256"])


def published_products(folder: Path) -> tuple[Published, ...]:
    """Return the products in a folder that passed the gate, fp32 first.

    Each sidecar names the file that it is of; no other file counts.

    Args:
        folder: where `validate` puts products and sidecars (`models/NAME/products`).

    Raises:
        TinygrowError: none is published, a file is not the one that the gate saw, or one has no
            sidecar.
    """
    found = [_published(sidecar) for sidecar in sorted(folder.glob("*.json"))]
    judged = {path for path, _ in found}
    for path in sorted(folder.glob("*.onnx")):
        if path not in judged:
            raise TinygrowError(f"{path} has no verdicts beside it; run the validate stage")
    products = [product for _, product in found if product is not None]
    if not products:
        raise TinygrowError(
            f"{folder} has no product that passed the gate; run dvc repro, and see the sidecars"
            " there (.json) for the reason"
        )
    order: tuple[str, ...] = PRECISIONS
    return tuple(sorted(products, key=lambda product: order.index(product.precision)))


def _published(sidecar: Path) -> tuple[Path, Published | None]:
    """Return the file that a sidecar is of, and the product if it is one."""
    try:
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        path = sidecar.with_name(str(facts["file"]))
        validated, stated, precision = facts["validated"], facts["sha256"], facts["precision"]
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise TinygrowError(
            f"{sidecar} is not what the validate stage writes ({error!r}); run that stage again"
        ) from error
    if not validated:
        return path, None
    if not path.is_file():
        raise TinygrowError(
            f"{path} is gone, but {sidecar.name} says that it is published; run the"
            " validate stage again"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != stated:
        raise TinygrowError(
            f"{path} is not the file that the gate saw: its SHA-256 is not that of"
            f" {sidecar.name}; run the validate stage again"
        )
    return path, Published(precision=precision, path=path, sidecar_path=sidecar, sidecar=facts)
