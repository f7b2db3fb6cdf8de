"""The methods by name."""

from tinygrow.growth.neurons import (
    firefly,
    gradmax,
    net2wider,
    random,
    random_pairs,
    random_variance,
    random_zero,
    tiny,
    whitened,
)
from tinygrow.growth.neurons.proposal import Method

METHODS: dict[str, Method] = {
    "tiny": tiny.propose,
    "whitened": whitened.propose,
    "gradmax": gradmax.propose,
    "firefly": firefly.propose,
    "net2wider": net2wider.propose,
    "random": random.propose,
    "random_zero": random_zero.propose,
    "random_pairs": random_pairs.propose,
    "random_variance": random_variance.propose,
}

SETTLED = ("gradmax", "net2wider", "random_zero", "random_pairs", "random_variance")
"""Methods whose neurons come with their amplitude: the loss is looked at before and after."""
