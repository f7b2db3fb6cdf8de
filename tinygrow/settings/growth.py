"""Every choice of growth. Defaults are the paper's, or its authors' code's where it is silent."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from tinygrow.settings.check import (
    MAX_BATCH,
    MAX_COUNT,
    above,
    at_least,
    between,
    one_of,
    require,
)
from tinygrow.settings.methods import MethodsSettings
from tinygrow.settings.plan import UntilSettings, WhenSettings, WhereSettings
from tinygrow.settings.training import TrainingSettings

MethodName = Literal[
    "tiny",
    "whitened",
    "gradmax",
    "firefly",
    "net2wider",
    "random",
    "random_zero",
    "random_pairs",
    "random_variance",
    "none",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsSettings:
    """How many images the second-order moments are estimated on, and how (appendix E.2).

    The size is max(`min_images`, factor * c**2 * C_in * C_out) with the paper's measured constants
    c of the map's size, rounded up to whole mini-batches and clipped to `max_images` and to the
    training set.

    Attributes:
        size: of the neurons' sample: `formula`, or `measured` (from `min_images` on it doubles
            until the neurons of one half agree with the other).
        agreement: share of their worth that the neurons of one half must keep on the other.
        conv_factor: `lu` for pairs of convolutions.
        linear_factor: `lu` for pairs of linear layers.
        min_images: lower end.
        max_images: upper end; 0: the training set.
        batch_size: images a forward pass; BatchNorm uses the statistics of such a mini-batch.
        same_sample: estimate N on the images that gave the best update, instead of fresh ones.
        dtype: of the products; where many chunks of images come together, sums are in float64.
        chunk_megabytes: bound of the im2col patches that are held at once.
    """

    size: Literal["formula", "measured"] = "formula"
    agreement: float = 0.5
    conv_factor: float = 0.5
    linear_factor: float = 2.0
    min_images: int = 200
    max_images: int = 0
    batch_size: int = 100
    same_sample: bool = False
    dtype: Literal["float32", "float64"] = "float32"
    chunk_megabytes: int = 256

    def __post_init__(self) -> None:
        one_of("size", self.size, ("formula", "measured"))
        between("agreement", self.agreement, 0, 1)
        above("conv_factor", self.conv_factor, 0)
        above("linear_factor", self.linear_factor, 0)
        at_least("min_images", self.min_images, 2)
        require(
            self.max_images == 0 or self.max_images >= self.min_images,
            "max_images",
            self.max_images,
            f"it must be 0 (no limit) or at least min_images ({self.min_images})",
        )
        between("batch_size", self.batch_size, 2, MAX_BATCH)
        one_of("dtype", self.dtype, ("float32", "float64"))
        at_least("chunk_megabytes", self.chunk_megabytes, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverSettings:
    """The numerical side of the closed form.

    Attributes:
        relative_cut: eigenvalues of S and S1 below this share of the largest count as zero.
        projection: project the desired update on what the existing weights cannot do (`tiny`;
            GradMax never projects).
        shrinkage: of S (`tiny`): `none`, or `cross_validated` (towards a multiple of the identity,
            by as much as serves the neurons of one half of the sample best on the other).
    """

    relative_cut: float = 1e-6
    projection: bool = True
    shrinkage: Literal["none", "cross_validated"] = "none"

    def __post_init__(self) -> None:
        one_of("shrinkage", self.shrinkage, ("none", "cross_validated"))
        require(
            0 < self.relative_cut < 1, "relative_cut", self.relative_cut, "it must be in (0, 1)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AmplitudeSettings:
    """Normalisation (appendix E.3), sign and line search of the new neurons.

    Attributes:
        normalization: `functional` (new activations as large as the layer's own), `parametric`
            (mean square norm 1 of a neuron's fan-in, bias included, and of its fan-out) or `none`.
        transparent_norm: give new channels of a BatchNorm between the two layers the affine values
            that undo it: it is the identity for them on the images of the search.
        sign: `group` (the better of the two signs of all new neurons at once), `neuron` (that of
            each, by its own first-order gain) or `none`.
        sign_amplitude: the amplitude factor at which the two signs are compared.
        images: training images of the line search.
        smallest_exponent: the search starts at 2**smallest_exponent.
        largest: the search ends at the largest power of two below this value.
        search: `first_increase` (from the smallest, stop when the loss rises: the paper), `grid`
            (try all), `bracket` (close in on the lowest with a few: 7 of 27) or `fixed` (take
            `fixed_factor`, whatever it does to the loss).
        fixed_factor: the amplitude factor without a search, and that of GradMax, which has none
            (the paper's: 1e-3).
        tolerance: share of the loss below which two losses count as equal.
        min_gain: share of the loss that the best amplitude must gain to be accepted.
        when_rejected: `preserve` adds the neurons with zero fan-out weights, so that the function
            is kept and widths follow the plan; `skip` adds nothing.
    """

    normalization: Literal["functional", "parametric", "none"] = "functional"
    transparent_norm: bool = False
    sign: Literal["group", "neuron", "none"] = "group"
    sign_amplitude: float = 1e-8
    images: int = 1000
    smallest_exponent: int = -27
    largest: float = 1.0
    search: Literal["first_increase", "grid", "bracket", "fixed"] = "first_increase"
    fixed_factor: float = 1e-3
    tolerance: float = 1e-7
    min_gain: float = 1e-8
    when_rejected: Literal["preserve", "skip"] = "preserve"

    def __post_init__(self) -> None:
        one_of("normalization", self.normalization, ("functional", "parametric", "none"))
        one_of("sign", self.sign, ("group", "neuron", "none"))
        above("sign_amplitude", self.sign_amplitude, 0)
        at_least("images", self.images, 2)
        above("largest", self.largest, 0)
        require(
            self.smallest_exponent < math.log2(self.largest),
            "smallest_exponent",
            self.smallest_exponent,
            f"2**smallest_exponent must be below largest ({self.largest})",
        )
        at_least("smallest_exponent", self.smallest_exponent, -1000)
        one_of("search", self.search, ("first_increase", "grid", "bracket", "fixed"))
        above("fixed_factor", self.fixed_factor, 0)
        at_least("tolerance", self.tolerance, 0)
        at_least("min_gain", self.min_gain, 0)
        one_of("when_rejected", self.when_rejected, ("preserve", "skip"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinementSettings:
    """What is made of the closed form's neurons before their amplitude is searched.

    Attributes:
        fan_out: `closed_form` (as the method gives it), `scale` (times a factor for each neuron) or
            `refit` (fitted anew), by least squares on the activations as the network computes them.
        candidates: directions asked of the method for each neuron wanted; with `refit` the best
            are kept, of both signs.
        metric: in which the desired update is approximated: `euclidean` (the paper's) or `fisher`
            (directions of the output in which the loss bends more count more).
        ridge: added to the activations' second moments, as a share of each.
        damping: added to the output's, as a share of their mean eigenvalue.
        significance: neurons are left out whose first-order gain on fresh images is below so many
            standard errors; 0: none. With `refit` alone, which settles signs.
        passes: at most so many moves of fan-in and fan-out together behind the search of the
            amplitude, each kept only if the loss falls on the images of the search.
    """

    fan_out: Literal["closed_form", "scale", "refit"] = "closed_form"
    candidates: int = 1
    metric: Literal["euclidean", "fisher"] = "euclidean"
    ridge: float = 0.1
    damping: float = 0.1
    significance: float = 0.0
    passes: int = 0

    def __post_init__(self) -> None:
        one_of("fan_out", self.fan_out, ("closed_form", "scale", "refit"))
        between("candidates", self.candidates, 1, 16)
        require(
            self.candidates == 1 or self.fan_out == "refit",
            "candidates",
            self.candidates,
            "only fan_out refit chooses among them; make it 1",
        )
        one_of("metric", self.metric, ("euclidean", "fisher"))
        require(
            self.metric == "euclidean" or self.fan_out != "closed_form",
            "metric",
            self.metric,
            "the closed form knows no other than euclidean; set fan_out to refit or scale",
        )
        above("ridge", self.ridge, 0)
        above("damping", self.damping, 0)
        at_least("significance", self.significance, 0)
        between("passes", self.passes, 0, 100)
        require(
            self.significance == 0 or self.fan_out == "refit",
            "significance",
            self.significance,
            "only with fan_out refit are the signs of new neurons known; make it 0",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthSettings:
    """Algorithm 1: what is added, where, when, and how the network trains in between.

    Attributes:
        method: what is added. `tiny`; `whitened` (TINY in the metric of the empirical Fisher
            matrix of the outputs); `firefly` (random neurons trained for a few steps); `random`
            (random directions): these get the amplitude of `amplitude`. With an amplitude of their
            own: `gradmax` (no fan-in, the fan-out of the largest gradient); `net2wider` (copies);
            `random_zero` (no fan-out yet); `random_pairs` (pairs that cancel out);
            `random_variance` (old neurons make room, so that the variance is kept). `none`: the
            schedule's training alone, the control that never grows.
        methods: what single methods may be told.
        extensions: visits of every site; each adds (final - start) / extensions neurons.
        epochs_between: Delta t, epochs of training after an extension.
        train_after: `site` (after every single extension) or `sweep` (after all sites).
        batch_growth: `sqrt_parameters` multiplies the batch size by the square root of the ratio
            of parameters at each extension (kept as a real number); `constant` leaves it.
        optimizer_state: `recreate` after an extension (the paper), or `pad` with zeros.
        snapshots: keep architecture and weights after every extension (of the seed always).
        where: see `WhereSettings`.
        when: see `WhenSettings`.
        until: see `UntilSettings`.
        statistics: see `StatisticsSettings`.
        solver: see `SolverSettings`.
        refinement: see `RefinementSettings`.
        amplitude: see `AmplitudeSettings`.
        training: the recipe.
    """

    method: MethodName = "tiny"
    methods: MethodsSettings = field(default_factory=MethodsSettings)
    extensions: int = 16
    epochs_between: float = 0.25
    train_after: Literal["site", "sweep"] = "site"
    batch_growth: Literal["sqrt_parameters", "constant"] = "sqrt_parameters"
    optimizer_state: Literal["recreate", "pad"] = "recreate"
    snapshots: bool = False
    where: WhereSettings = field(default_factory=WhereSettings)
    when: WhenSettings = field(default_factory=WhenSettings)
    until: UntilSettings = field(default_factory=UntilSettings)
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    solver: SolverSettings = field(default_factory=SolverSettings)
    refinement: RefinementSettings = field(default_factory=RefinementSettings)
    amplitude: AmplitudeSettings = field(default_factory=AmplitudeSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        one_of("method", self.method, get_args(MethodName))
        between("extensions", self.extensions, 1, MAX_COUNT)
        between("epochs_between", self.epochs_between, 0, MAX_COUNT)
        one_of("train_after", self.train_after, ("site", "sweep"))
        one_of("batch_growth", self.batch_growth, ("sqrt_parameters", "constant"))
        one_of("optimizer_state", self.optimizer_state, ("recreate", "pad"))
        self._check_plan()

    @property
    def open_ended(self) -> bool:
        """Whether what growth meets decides how long it goes on, and where."""
        return self.method != "none" and (
            self.where.order != "sweep" or self.when.trigger != "every" or self.until.limited
        )

    def _check_plan(self) -> None:
        """Refuse what an open-ended plan cannot keep."""
        require(
            self.train_after == "site" or not self.open_ended,
            "train_after",
            self.train_after,
            "sweeps are whole only with where.order sweep, when.trigger every and no limit under"
            " until; make it site",
        )
        if self.when.trigger != "every":
            require(
                0 < self.epochs_between <= self.when.max_epochs,
                "when.max_epochs",
                self.when.max_epochs,
                f"when.trigger {self.when.trigger} looks every epochs_between"
                f" ({self.epochs_between:g}) epochs; make that more than 0 and max_epochs no less",
            )
