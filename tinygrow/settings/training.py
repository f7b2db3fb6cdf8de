"""How a network is trained: one recipe serves growth and fine-tuning."""

from dataclasses import dataclass, field
from typing import Literal

from tinygrow.settings.check import (
    MAX_BATCH,
    MAX_COUNT,
    MAX_SIDE,
    above,
    at_least,
    between,
    one_of,
    require,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSettings:
    """What is done to a training image, on the device, before each pass.

    Attributes:
        crop_padding: pixels of reflected border of which a window of the old size is cut; 0: off.
        flip: mirror left and right: `random`, with probability 1/2; `alternating`, half of the
            images in every other epoch and the rest in the epochs between, so that two passes show
            an image both ways (samples for statistics are mirrored at random); `off`.
        cutout: side, in pixels, of a square that is set to the mean; 0: off.
    """

    crop_padding: int = 4
    flip: Literal["random", "alternating", "off"] = field(
        default="random", metadata={"formerly": {True: "random", False: "off"}}
    )
    cutout: int = 0

    def __post_init__(self) -> None:
        one_of("flip", self.flip, ("random", "alternating", "off"))
        between("crop_padding", self.crop_padding, 0, MAX_SIDE)
        between("cutout", self.cutout, 0, MAX_SIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Optimiser, schedule and numerics. Defaults: the paper's plain SGD (tiny.md 1.12).

    Attributes:
        optimizer: `sgd` or `adamw`.
        learning_rate: peak value.
        momentum: of SGD.
        nesterov: Nesterov's momentum.
        weight_decay: on weights; biases and normalisation parameters are left out.
        batch_size: images a step (in growth: at the start).
        schedule: `constant`, `cosine` (to zero), `triangular` (up, then down to zero).
        warmup_epochs: linear rise from zero before `constant` and `cosine`; with `triangular`
            the length of the rise.
        label_smoothing: mass moved from the true class to all classes.
        ema: decay of an exponential moving average of the weights a step; 0: off.
        precision: `float32`, `bfloat16` (autocast; statistics and line search stay float32), or
            `auto`: bfloat16 on a GPU, and on a CPU where it was measured to be faster
            (`tinygrow.training.precision`).
        augmentation: see `AugmentationSettings`.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    batch_size: int = 32
    schedule: Literal["constant", "cosine", "triangular"] = "constant"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)

    def __post_init__(self) -> None:
        one_of("optimizer", self.optimizer, ("sgd", "adamw"))
        above("learning_rate", self.learning_rate, 0)
        require(0 <= self.momentum < 1, "momentum", self.momentum, "it must be in [0, 1)")
        require(
            not self.nesterov or self.momentum > 0,
            "nesterov",
            self.nesterov,
            "it needs momentum > 0",
        )
        require(
            self.optimizer == "sgd" or self.momentum == 0,
            "momentum",
            self.momentum,
            "adamw has none of its own kind; set it to 0",
        )
        at_least("weight_decay", self.weight_decay, 0)
        between("batch_size", self.batch_size, 2, MAX_BATCH)
        one_of("schedule", self.schedule, ("constant", "cosine", "triangular"))
        at_least("warmup_epochs", self.warmup_epochs, 0)
        require(
            0 <= self.label_smoothing < 1,
            "label_smoothing",
            self.label_smoothing,
            "it must be in [0, 1)",
        )
        require(0 <= self.ema < 1, "ema", self.ema, "it must be in [0, 1)")
        one_of("precision", self.precision, ("float32", "bfloat16", "auto"))


@dataclass(frozen=True, slots=True, kw_only=True)
class InducementSettings:
    """Penalties that make units provably stable, for exact compression; 0 switches one off.

    Attributes:
        l1_norm: proximal l1 on the scales of BatchNorm, which makes channels exactly zero.
        l1_weights: proximal l1 on the weights of dense layers.
        rs_loss: weight of the RS loss, which pushes both bounds of a pre-activation to one side of
            zero (Xiao and others, 2019); for small networks.
    """

    l1_norm: float = 0.0
    l1_weights: float = 0.0
    rs_loss: float = 0.0

    def __post_init__(self) -> None:
        at_least("l1_norm", self.l1_norm, 0)
        at_least("l1_weights", self.l1_weights, 0)
        at_least("rs_loss", self.rs_loss, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """Training at full width.

    Attributes:
        epochs: passes over the training images (the paper: 250).
        max_epochs: passes where training has not converged after `epochs` (the paper: 500), which
            needs a constant learning rate; not above `epochs`: never more.
        convergence_window: epochs of each of the two means that decide whether it has.
        convergence_points: it has if the mean validation accuracy (percent) of the last window is
            at most so much above that of the window before.
        evaluate_every: epochs between two looks at the validation images; the last epoch always.
        compile: training steps by torch.compile, once for the whole training: `off`, `on`, or
            `auto`: on a GPU. Where nothing can be compiled, as no compiler is installed, a line
            says so and training goes on without.
        stability: penalties that make units removable by exact compression.
        training: the recipe.
    """

    epochs: int = 250
    max_epochs: int = 0
    convergence_window: int = 25
    convergence_points: float = 0.5
    evaluate_every: int = 1
    compile: Literal["off", "on", "auto"] = "off"
    stability: InducementSettings = field(default_factory=InducementSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        between("epochs", self.epochs, 0, MAX_COUNT)
        between("max_epochs", self.max_epochs, 0, MAX_COUNT)
        at_least("convergence_window", self.convergence_window, 1)
        at_least("convergence_points", self.convergence_points, 0)
        at_least("evaluate_every", self.evaluate_every, 1)
        one_of("compile", self.compile, ("off", "on", "auto"))
        if self.max_epochs > self.epochs:
            require(
                self.training.schedule == "constant",
                "max_epochs",
                self.max_epochs,
                f"above epochs ({self.epochs}) it needs training.schedule constant, not"
                f" {self.training.schedule}, which has come to its end by then",
            )
            require(
                self.evaluate_every <= self.convergence_window <= self.epochs // 2,
                "convergence_window",
                self.convergence_window,
                f"it must be from evaluate_every ({self.evaluate_every}) to half of epochs"
                f" ({self.epochs // 2})",
            )
        require(
            self.training.warmup_epochs <= self.epochs,
            "training.warmup_epochs",
            self.training.warmup_epochs,
            f"it must not exceed epochs ({self.epochs})",
        )
