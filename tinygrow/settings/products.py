"""Export to ONNX in three precisions, and the gate that each product has to pass."""

from dataclasses import dataclass, field
from typing import Literal

from tinygrow.settings.check import MAX_BATCH, MAX_COUNT, above, at_least, between, one_of, require

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationSettings:
    """How the int8 product is made; images are training and validation images, never test images.

    Attributes:
        calibration_images: training images that the ranges of activations are measured on; fewer
            where there are fewer.
        calibration: `minmax` takes the whole range seen; `percentile` and `entropy` cut its tails.
        percentile: share of the values, in percent, that `percentile` keeps inside of the range.
        reduce_range: weights of 7 bits instead of 8. x86 processors without VNNI add pairs of
            8-bit products in 16 bits and clip the sum; with 7 bits none can overflow, so that the
            answers, and with them the gate's verdict, hold on all of them.
        keep_float: `auto` keeps the most sensitive layers in float until the two budgets below hold
            on validation images; `none` quantises all.
        min_agreement: share of the validation images that get the class of the fp32 product; less
            one standard error, for they stand for the test images.
        max_accuracy_loss: in percentage points, on validation images.
    """

    calibration_images: int = 512
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    percentile: float = 99.99
    reduce_range: bool = True
    keep_float: Literal["auto", "none"] = "auto"
    min_agreement: float = 0.985
    max_accuracy_loss: float = 0.5

    def __post_init__(self) -> None:
        between("calibration_images", self.calibration_images, 1, MAX_COUNT)
        one_of("calibration", self.calibration, ("minmax", "percentile", "entropy"))
        one_of("keep_float", self.keep_float, ("auto", "none"))
        require(
            50 < self.percentile <= 100,
            "percentile",
            self.percentile,
            "it must be greater than 50 and at most 100",
        )
        between("min_agreement", self.min_agreement, 0, 1)
        at_least("max_accuracy_loss", self.max_accuracy_loss, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """Which ONNX files are written, and how.

    Attributes:
        opset: ONNX operator set version.
        precisions: of the products; fp32 is among them, for the others are made from its file.
        int8: how that one is made.
    """

    opset: int = 20
    precisions: tuple[Precision, ...] = PRECISIONS
    int8: QuantizationSettings = field(default_factory=QuantizationSettings)

    def __post_init__(self) -> None:
        between("opset", self.opset, 18, 26)
        distinct("precisions", self.precisions)
        require(
            "fp32" in self.precisions,
            "precisions",
            list(self.precisions),
            "it must name fp32, which the others are made from",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a product may lose against PyTorch in float32, over the whole test set.

    Attributes:
        relative_tolerance: largest difference of logits, divided by the largest absolute logit.
            int8 is held to it only where its own file is computed in two ways.
        min_agreement: share of test images on which PyTorch and the product name the same class.
        max_accuracy_loss: in percentage points of test accuracy.
        max_ece_increase: of the expected calibration error, as a share from 0 to 1.
    """

    relative_tolerance: float
    min_agreement: float
    max_accuracy_loss: float
    max_ece_increase: float

    def __post_init__(self) -> None:
        above("relative_tolerance", self.relative_tolerance, 0)
        between("min_agreement", self.min_agreement, 0, 1)
        at_least("max_accuracy_loss", self.max_accuracy_loss, 0)
        at_least("max_ece_increase", self.max_ece_increase, 0)


def _fp32() -> Budget:
    return Budget(
        relative_tolerance=1e-4,
        min_agreement=0.9999,
        max_accuracy_loss=0.02,
        max_ece_increase=0.005,
    )


def _fp16() -> Budget:
    return Budget(
        relative_tolerance=0.01, min_agreement=0.999, max_accuracy_loss=0.1, max_ece_increase=0.01
    )


def _int8() -> Budget:
    return Budget(
        relative_tolerance=0.1, min_agreement=0.985, max_accuracy_loss=0.5, max_ece_increase=0.02
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateSettings:
    """The gate: what is required, and the budgets.

    Attributes:
        required: precisions whose refusal fails the pipeline; another product that is refused is
            left out, and the rest goes on.
        batch_sizes: at which parity is checked.
        require_gpu: fail, instead of reporting SKIPPED, where no GPU provider runs.
        fp32: budget of that product.
        fp16: likewise.
        int8: likewise.
    """

    required: tuple[Precision, ...] = ("fp32",)
    batch_sizes: tuple[int, ...] = (1, 2, 7, 64)
    require_gpu: bool = False
    fp32: Budget = field(default_factory=_fp32)
    fp16: Budget = field(default_factory=_fp16)
    int8: Budget = field(default_factory=_int8)

    def __post_init__(self) -> None:
        distinct("required", self.required)
        require(
            len(self.batch_sizes) > 0 and all(1 <= size <= MAX_BATCH for size in self.batch_sizes),
            "batch_sizes",
            list(self.batch_sizes),
            f"it must name at least one size, each from 1 to {MAX_BATCH}",
        )

    def budget(self, precision: Precision) -> Budget:
        """Return the budget of a product."""
        return {"fp32": self.fp32, "fp16": self.fp16, "int8": self.int8}[precision]


def distinct(name: str, precisions: tuple[Precision, ...]) -> None:
    """Require that each precision is known and named once."""
    require(
        set(precisions) <= set(PRECISIONS) and len(set(precisions)) == len(precisions),
        name,
        list(precisions),
        f"it must name each of {', '.join(PRECISIONS)} at most once",
    )
