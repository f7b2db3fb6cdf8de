"""Which products of a model there are to use: the one place that knows how they lie on disk."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrow.errors import TinygrowError

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A product that passed the gate.

    Attributes:
        precision: one of `PRECISIONS`.
        path: of its .onnx file.
        sidecar: what the gate found: `sha256`, `accuracy`, `checks`, `latency` and more.
    """

    precision: str
    path: Path
    sidecar: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Checksum of the file that the gate saw."""
        return str(self.sidecar["sha256"])


def product_file(folder: Path, precision: str = "fp32") -> Path:
    """Return where a product of the model in `folder` (`models/NAME`) lies, there or not."""
    return folder / "products" / f"{precision}.onnx"


def sidecar_file(product: Path) -> Path:
    """Return where the verdicts on a product lie."""
    return product.with_suffix(".json")


def product_names(folder: Path) -> list[str]:
    """Return the precisions of which the model in `folder` has a file, largest first."""
    return [p for p in PRECISIONS if product_file(folder, p).is_file()]


def published_products(folder: Path) -> tuple[Published, ...]:
    """Return the products of the model in `folder` that passed the gate, fp32 first.

    Args:
        folder: `models/NAME`.

    Raises:
        TinygrowError: none is published, or a file is not the one that the gate saw.
    """
    found = [_published(product_file(folder, p), p) for p in product_names(folder)]
    products = tuple(product for product in found if product is not None)
    if not products:
        raise TinygrowError(
            f"{folder} has no product that passed the gate; run dvc repro, and see"
            f" metrics/{folder.name}/validate.json for the reason"
        )
    return products


def _published(path: Path, precision: str) -> Published | None:
    sidecar = sidecar_file(path)
    try:
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
        validated, stated = bool(facts["validated"]), str(facts["sha256"])
    except FileNotFoundError as error:
        raise TinygrowError(
            f"{path} has no verdicts beside it ({sidecar.name}); run the validate stage"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TinygrowError(
            f"{sidecar} is not what the validate stage writes ({error!r}); run that stage again"
        ) from error
    if not validated:
        return None
    if hashlib.sha256(path.read_bytes()).hexdigest() != stated:
        raise TinygrowError(
            f"{path} is not the file that the gate saw: its SHA-256 is not that of"
            f" {sidecar.name}; run the validate stage again"
        )
    return Published(precision=precision, path=path, sidecar=facts)
