"""Export to ONNX and the gate that a product has to pass."""

from dataclasses import dataclass

from tinygrow.settings.check import MAX_BATCH, above, at_least, between, require


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """How the ONNX file is written.

    Attributes:
        opset: ONNX operator set version.
    """

    opset: int = 20

    def __post_init__(self) -> None:
        between("opset", self.opset, 18, 26)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateSettings:
    """Budgets of the gate.

    Attributes:
        relative_tolerance: largest difference of logits, divided by the largest absolute logit.
        min_agreement: share of test images on which PyTorch and ONNX name the same class.
        max_accuracy_difference: in percentage points of test accuracy.
        batch_sizes: at which parity is checked.
        require_gpu: fail, instead of reporting SKIPPED, where no GPU provider runs.
    """

    relative_tolerance: float = 1e-4
    min_agreement: float = 0.9999
    max_accuracy_difference: float = 0.02
    batch_sizes: tuple[int, ...] = (1, 2, 7, 64)
    require_gpu: bool = False

    def __post_init__(self) -> None:
        above("relative_tolerance", self.relative_tolerance, 0)
        between("min_agreement", self.min_agreement, 0, 1)
        at_least("max_accuracy_difference", self.max_accuracy_difference, 0)
        require(
            len(self.batch_sizes) > 0 and all(1 <= size <= MAX_BATCH for size in self.batch_sizes),
            "batch_sizes",
            list(self.batch_sizes),
            f"it must name at least one size, each from 1 to {MAX_BATCH}",
        )
