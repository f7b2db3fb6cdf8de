"""What the checks look at: a file, and everything it is held against."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from torch import nn

from tinygrow.data.prepared import DataCard
from tinygrow.deploy.contract import INPUT, OUTPUT
from tinygrow.deploy.sessions import open_session
from tinygrow.observer import Observer
from tinygrow.products.fold import fold_batch_norm
from tinygrow.products.gate.before import Before
from tinygrow.products.reference import torch_logits
from tinygrow.settings.products import Budget, Precision, ValidateSettings

Logits = NDArray[np.float32]
Images = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A product under test; expensive values are computed once, when first asked for.

    Attributes:
        path: of the .onnx file.
        precision: that it is to have.
        name: of the model.
        opset: that the file must have.
        network: the checkpoint's, in evaluation mode, on the CPU.
        card: of the data set.
        images: the whole test set, uint8 (N, C, H, W).
        labels: int64 (N,).
        settings: of the gate, with the budgets of every precision.
        observer: told of the progress.
        before: what the network was before it was compressed; None: it was not.
    """

    path: Path
    precision: Precision
    name: str
    opset: int
    network: nn.Module
    card: DataCard
    images: Images
    labels: NDArray[np.int64]
    settings: ValidateSettings
    observer: Observer
    before: Before | None = None

    @property
    def budget(self) -> Budget:
        """What a product of this precision may lose."""
        return self.settings.budget(self.precision)

    @cached_property
    def content(self) -> bytes:
        """The file's bytes."""
        return self.path.read_bytes()

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The file as ONNX reads it."""
        return onnx.load_model_from_string(self.content)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The file's metadata."""
        return {entry.key: entry.value for entry in self.model.metadata_props}

    @cached_property
    def folded(self) -> nn.Module:
        """The checkpoint's network without BatchNorm."""
        return fold_batch_norm(self.network)

    @cached_property
    def torch_logits(self) -> Logits:
        """PyTorch's logits of the whole test set, float32 (N, classes)."""
        return torch_logits(self.folded, self.card, self.images, self.observer)

    @cached_property
    def session(self) -> ort.InferenceSession:
        """A session on the CPU."""
        return open_session(self.content, "cpu")

    @cached_property
    def onnx_logits(self) -> Logits:
        """ONNX Runtime's logits of the whole test set on the CPU, float32 (N, classes)."""
        return run_session(self.session, self.images, self.observer)

    def sibling(self, path: Path, precision: Precision) -> Self:
        """Return another product of the same network under test, with PyTorch's answers shared."""
        other = replace(self, path=path, precision=precision)
        for name in ("folded", "torch_logits"):
            if name in vars(self):
                vars(other)[name] = vars(self)[name]
        return other

    def real(self, count: int) -> Images:
        """Return `count` test images, from the start again where there are fewer."""
        return self.images[np.arange(count) % len(self.images)]

    def reference(self, images: Images) -> Logits:
        """Return PyTorch's logits of other images."""
        return torch_logits(self.folded, self.card, images)


def run_session(
    session: ort.InferenceSession,
    images: Images,
    observer: Observer | None = None,
    batch_size: int = 256,
) -> Logits:
    """Return a session's logits (N, classes) of uint8 images (N, C, H, W)."""
    observer = observer or Observer()
    parts = []
    with observer.work(f"ONNX Runtime, {session.get_providers()[0]}", len(images), "images"):
        for start in range(0, len(images), batch_size):
            batch = np.ascontiguousarray(images[start : start + batch_size])
            parts.append(session.run([OUTPUT], {INPUT: batch})[0])
            observer.advance(len(batch))
    return np.concatenate(parts)


def relative_difference(found: Logits, right: Logits) -> float:
    """Return the largest difference divided by the largest absolute logit of `right`.

    Infinite where shapes differ or a logit is not finite: a NaN would pass any `>`.
    """
    if found.shape != right.shape or not np.isfinite(found).all():
        return float("inf")
    scale = float(np.abs(right).max())
    return float(np.abs(found - right).max()) / (scale or 1.0)
