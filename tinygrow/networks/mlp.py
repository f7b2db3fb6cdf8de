"""A plain perceptron whose hidden layers grow."""

import math
from itertools import pairwise

import torch
from torch import nn

from tinygrow.architecture import Architecture


class MLP(nn.Module):
    """Flatten, then Linear - ReLU for each hidden width, then Linear; logits out.

    Args:
        architecture: of kind `mlp`.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        widths = [math.prod(architecture.input_shape), *architecture.middle_widths]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(widths[-1], architecture.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised images (B, C, H, W) to logits (B, classes)."""
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)
