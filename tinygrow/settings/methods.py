"""The settings of single methods of growth; the others ignore them."""

from dataclasses import dataclass, field

from tinygrow.settings.check import MAX_COUNT, above, at_least, between


@dataclass(frozen=True, slots=True, kw_only=True)
class Net2WiderSettings:
    """Copies of neurons (Chen, Goodfellow, Shlens 2016).

    Attributes:
        noise: standard deviation of the noise on the equal shares in which a neuron and its copies
            divide its fan-out. 0: equal shares; then copies stay twins for good, as nothing in the
            training tells them apart.
    """

    noise: float = 0.5

    def __post_init__(self) -> None:
        at_least("noise", self.noise, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FireflySettings:
    """Small random neurons, trained for a few steps, the best of them kept (Wu et al. 2020).

    Attributes:
        steps: of Adam, each on a mini-batch of the statistics' size.
        candidates: neurons trained for one that is kept.
        learning_rate: of Adam, for weights in units of their root mean square.
    """

    steps: int = 20
    candidates: float = 2.0
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        between("steps", self.steps, 1, MAX_COUNT)
        at_least("candidates", self.candidates, 1)
        above("learning_rate", self.learning_rate, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhitenedSettings:
    """TINY in the metric of the empirical Fisher matrix at the second layer's output.

    Attributes:
        ridge: is added to the matrix, as a share of its mean eigenvalue.
    """

    ridge: float = 1e-2

    def __post_init__(self) -> None:
        above("ridge", self.ridge, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodsSettings:
    """What single methods may be told.

    Attributes:
        net2wider: see `Net2WiderSettings`.
        firefly: see `FireflySettings`.
        whitened: see `WhitenedSettings`.
    """

    net2wider: Net2WiderSettings = field(default_factory=Net2WiderSettings)
    firefly: FireflySettings = field(default_factory=FireflySettings)
    whitened: WhitenedSettings = field(default_factory=WhitenedSettings)
