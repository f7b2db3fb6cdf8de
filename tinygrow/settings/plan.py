"""Where growth adds neurons, when, and until when. Defaults are the paper's: all sites in turn."""

from dataclasses import dataclass
from typing import Literal

from tinygrow.settings.check import MAX_BATCH, MAX_COUNT, above, at_least, between, one_of


@dataclass(frozen=True, slots=True, kw_only=True)
class WhereSettings:
    """Which site comes next.

    Attributes:
        order: `sweep` (all sites in order of depth, again and again) or `greedy` (the same visits,
            each time that of the site with the best score).
        score: the loss that a site's new neurons take off held-out images, `per_parameter`,
            `per_multiply_add` or `per_latency` (measured, hence not the same in every run).
        candidates: sites whose gain is measured, the best by the gain that the singular values
            predict; 0: all.
        images: training images that measure gains and their significance, apart from those of the
            moments and of the line search; at most a third of the training set.
        latency_batch: images of a forward pass that is timed.
        width_multiple: widths that grow are kept to multiples of this.
    """

    order: Literal["sweep", "greedy"] = "sweep"
    score: Literal["per_parameter", "per_multiply_add", "per_latency"] = "per_parameter"
    candidates: int = 3
    images: int = 1000
    latency_batch: int = 1
    width_multiple: int = 1

    def __post_init__(self) -> None:
        one_of("order", self.order, ("sweep", "greedy"))
        one_of("score", self.score, ("per_parameter", "per_multiply_add", "per_latency"))
        between("candidates", self.candidates, 0, MAX_COUNT)
        at_least("images", self.images, 2)
        between("latency_batch", self.latency_batch, 1, MAX_BATCH)
        between("width_multiple", self.width_multiple, 1, MAX_COUNT)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhenSettings:
    """When the next extension comes. Between two looks lies training of `epochs_between`.

    Attributes:
        trigger: `every` (at each look), `plateau` (once the training loss has stopped falling) or
            `significant` (once new neurons at some site take loss off held-out images beyond
            doubt; where that stays out for `max_epochs`, growth ends).
        window: looks whose mean training loss is compared with that of as many before (`plateau`).
        improvement: share of the loss; a smaller fall is none (`plateau`).
        max_epochs: of training before an extension (`plateau` then extends all the same).
        z: standard errors by which a gain must exceed zero to be significant, one-sided; with
            several sites to choose from the level is divided among them.
    """

    trigger: Literal["every", "plateau", "significant"] = "every"
    window: int = 1
    improvement: float = 0.01
    max_epochs: float = 2.0
    z: float = 2.0

    def __post_init__(self) -> None:
        one_of("trigger", self.trigger, ("every", "plateau", "significant"))
        between("window", self.window, 1, MAX_COUNT)
        at_least("improvement", self.improvement, 0)
        between("max_epochs", self.max_epochs, 0, MAX_COUNT)
        above("z", self.z, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class UntilSettings:
    """When growth ends; at its full width always. 0: no such limit.

    No extension exceeds a budget: it gets the neurons that fit, or is left out. A seed network
    beyond it stays as it is.

    Attributes:
        parameters: of the network at most.
        multiply_adds: of an image at most.
        latency_ms: median milliseconds of a forward pass at most, as measured before an extension.
        validation_accuracy: percent that ends growth; the one thing that validation images decide.
        no_significant_gain: end as soon as no site has a significant gain (`WhenSettings.z`).
    """

    parameters: int = 0
    multiply_adds: int = 0
    latency_ms: float = 0.0
    validation_accuracy: float = 0.0
    no_significant_gain: bool = False

    def __post_init__(self) -> None:
        at_least("parameters", self.parameters, 0)
        at_least("multiply_adds", self.multiply_adds, 0)
        at_least("latency_ms", self.latency_ms, 0)
        between("validation_accuracy", self.validation_accuracy, 0, 100)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self != UntilSettings()

    @property
    def budgeted(self) -> bool:
        """Whether there is a limit to the network's cost."""
        return bool(self.parameters or self.multiply_adds or self.latency_ms)
