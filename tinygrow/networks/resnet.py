"""The paper's residual network: only the middle width of each block grows (tiny.md 1.11).

Layers are numbered as the paper does: 1 is the stem; a block owns two convolutions; a transition
(1x1 convolution, BatchNorm, average pooling, no ReLU) owns one; the head is the last.
"""

import torch
from torch import nn

from tinygrow.architecture import Architecture


class BasicBlock(nn.Module):
    """conv3x3 - BatchNorm - ReLU - conv3x3 - BatchNorm, plus its input, then ReLU."""

    def __init__(self, width: int, middle: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, middle, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, width, H, W) to the same shape."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class Transition(nn.Module):
    """1x1 convolution to the next stage's width, BatchNorm, 2x2 average pooling."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_width, out_width, 1)
        self.norm = nn.BatchNorm2d(out_width)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_width, H, W) to (B, out_width, H // 2, W // 2)."""
        return self.pool(self.norm(self.conv(x)))


class ResNet(nn.Module):
    """Residual network with identity skips throughout; logits out.

    Args:
        architecture: of kind `resnet`.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        widths = architecture.stage_widths
        self.stem = nn.Sequential(
            nn.Conv2d(architecture.input_shape[0], widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        middle = iter(architecture.middle_widths)
        self.stages = nn.ModuleList()
        for i, (width, count) in enumerate(zip(widths, architecture.blocks, strict=True)):
            stage = nn.Sequential()
            if i > 0:
                stage.add_module("transition", Transition(widths[i - 1], width))
            for j in range(count):
                stage.add_module(f"block{j}", BasicBlock(width, next(middle)))
            self.stages.append(stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[-1], architecture.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised images (B, C, H, W) to logits (B, classes)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(self.pool(x).flatten(1))
