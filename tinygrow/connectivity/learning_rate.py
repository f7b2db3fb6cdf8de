"""How a learning rate scales with depth: as a ratio, on chains without normalisation alone.

After *Principled Architecture-aware Scaling of Hyperparameters* (Chen, Wu, Wang, Hanin, ICLR 2024,
arXiv 2402.17440): the largest stable rate of the first steps falls with the root of the sum of
cubed depths over all paths, and with the kernel size. Of a chain that is depth^(-3/2). There is no
theory with normalisation, and over the many paths of residual networks the sum collapses (0.00004
for a ResNet-34), so that neither gets a ratio here.
"""

from dataclasses import dataclass

from tinygrow.connectivity.segments import Segment, Wiring

LEAST = 0.25
"""No single change of a network takes more off its rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRule:
    """What the rule says of one chain.

    Attributes:
        segment: its number, from 1.
        hidden: its layers, without the read-out of the network.
        against_one: ratio to the rate of the same chain with one hidden layer.
        after_insertion: ratio after one more layer is inserted, at least `LEAST`.
    """

    segment: int
    hidden: int
    against_one: float
    after_insertion: float


def depth_ratio(before: int, after: int) -> float:
    """Return the factor on the learning rate of a chain whose hidden layers change in number.

    Args:
        before: hidden layers, at least 1.
        after: likewise.
    """
    if min(before, after) < 1:
        raise ValueError(f"{before} and {after} hidden layers; both must be at least 1")
    return float((before / after) ** 1.5)


def kernel_ratio(before: int, after: int) -> float:
    """Return the factor on the learning rate when a kernel's size changes."""
    if min(before, after) < 1:
        raise ValueError(f"kernels of {before} and {after}; both must be at least 1")
    return before / after


def rate_rules(wiring: Wiring, *, norms_known: bool) -> list[RateRule]:
    """Return the rule for each chain that it holds for: two layers or more, nothing normalised."""
    rules = []
    for number, segment in enumerate(wiring.segments, 1):
        hidden = len(segment.layers) - _reads_out(wiring, segment)
        if norms_known and segment.is_chain and not segment.has_norm and hidden > 0:
            if len(segment.layers) < 2:
                continue
            rules.append(
                RateRule(
                    segment=number,
                    hidden=hidden,
                    against_one=depth_ratio(1, hidden),
                    after_insertion=max(LEAST, depth_ratio(hidden, hidden + 1)),
                )
            )
    return rules


def why_no_rule(wiring: Wiring, *, norms_known: bool) -> str:
    """Return why no segment of a network has a rule."""
    if not norms_known:
        return (
            "not known: an exported file does not say whether BatchNorm was folded into its"
            " layers, and the rule holds without normalisation alone"
        )
    if any(value.kind == "norm" for value in wiring.values):
        return "does not apply: the network normalises, and the rule has no theory for that"
    return (
        "does not apply: no segment is a chain of two layers or more, and summed over the paths of"
        " a branching network the rule collapses"
    )


def _reads_out(wiring: Wiring, segment: Segment) -> bool:
    return segment is wiring.segments[-1]
