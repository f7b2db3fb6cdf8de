"""The methods by name."""

from tinygrow.growth.neurons import gradmax, random, tiny
from tinygrow.growth.neurons.proposal import Method

METHODS: dict[str, Method] = {
    "tiny": tiny.propose,
    "gradmax": gradmax.propose,
    "random": random.propose,
}
