"""The network before compression, and the steps from it to the product's."""

import copy
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tinygrow.products.fold import fold_batch_norm
from tinygrow.stability.rewrite import DELETIONS, replay


@dataclass(frozen=True, kw_only=True)
class Before:
    """What a compressed product is held against; expensive values are computed once.

    Attributes:
        trained: the fine-tuned network, not folded, in evaluation mode, on the CPU.
        certificate: path of certificate.json.
        uncompressed: path of uncompressed.onnx.
    """

    trained: nn.Module
    certificate: Path
    uncompressed: Path

    @cached_property
    def told(self) -> dict[str, Any]:
        """What the certificate says."""
        value: dict[str, Any] = json.loads(self.certificate.read_text(encoding="utf-8"))
        return value

    @cached_property
    def folded(self) -> nn.Module:
        """The trained network without BatchNorm, float32."""
        return fold_batch_norm(self.trained)

    @cached_property
    def exact(self) -> nn.Module:
        """The same in float64."""
        return copy.deepcopy(self.folded).double()

    @cached_property
    def replayed(self) -> nn.Module:
        """What the steps make of it, in float64: before its weights are rounded."""
        return replay(self.folded, self.steps).eval().requires_grad_(False)

    @cached_property
    def rounded(self) -> dict[str, torch.Tensor]:
        """The weights of `replayed`, rounded to float32."""
        return {name: values.float() for name, values in self.replayed.state_dict().items()}

    @property
    def steps(self) -> tuple[dict[str, Any], ...]:
        """The steps of the certificate."""
        return tuple(self.told["steps"])

    @property
    def deletes_only(self) -> bool:
        """Whether all weights that are left are what they were, bit by bit."""
        return all(step["op"] in DELETIONS for step in self.steps)
