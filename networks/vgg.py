"""A small VGG, as an example of a network of one's own.

In params.yaml: `architecture: networks.vgg:vgg`, or with a block

    architecture:
      kind: custom
      network: networks.vgg:vgg
      start: 0.25
      arguments: {widths: [16, 32], hidden: 64}
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def vgg(
    input_shape: tuple[int, int, int],
    classes: int,
    widths: Sequence[int] = (32, 64, 128),
    hidden: int = 128,
    dropout: float = 0.2,
) -> nn.Module:
    """Return the network at the widths that growth is to reach.

    Args:
        input_shape: channels, height, width of an image.
        classes: number of logits.
        widths: channels of each stage, a convolution and 2x2 max-pooling.
        hidden: units before the logits.
        dropout: share of them that training switches off.
    """
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((channels, *widths)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        height, width = height // 2, width // 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(widths[-1] * height * width, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )
