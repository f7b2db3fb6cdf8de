"""The methods by name."""

from tinygrow.growth.neurons import random, tiny
from tinygrow.growth.neurons.proposal import Method

METHODS: dict[str, Method] = {"tiny": tiny.propose, "random": random.propose}
