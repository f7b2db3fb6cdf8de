"""Networks as people write them, small: what may stand between two layers, and what may not."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.growth.discovery import find_sites
from tinygrow.growth.sites import Site


class Between(nn.Module):
    """first - what stands between - second - activation - linear head, in float64."""

    def __init__(
        self, first: nn.Module, between: Sequence[nn.Module], second: nn.Module, x: torch.Tensor
    ) -> None:
        super().__init__()
        self.first, self.between, self.second = first, nn.Sequential(*between), second
        self.activation: nn.Module = nn.Tanh()
        self.double()
        with torch.no_grad():
            features = second(self.between(first(x)))[0].numel()
        self.head = nn.Linear(features, 3).double()

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.between(self.first(x))

    def tail(self, a: torch.Tensor) -> torch.Tensor:
        return self.head(self.activation(a).flatten(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.second(self.hidden(x)))

    def site(self, x: torch.Tensor) -> Site:
        return next(site for site in find_sites(self, x) if site.first == "first")


class Lenet(nn.Module):
    """Written with functions and methods alone between its layers."""

    def __init__(self, hard_coded: bool = False) -> None:
        super().__init__()
        self.hard_coded = hard_coded
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.conv2 = nn.Conv2d(4, 5, 3, padding="same")
        self.fc1 = nn.Linear(5 * 3 * 3, 6)
        self.fc2 = nn.Linear(6, 7)
        self.fc3 = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2, stride=1, ceil_mode=True)
        x = torch.nn.functional.adaptive_avg_pool2d(self.conv2(x).relu_(), (3, None))
        x = F.avg_pool2d(x, kernel_size=(1, 3), stride=1)
        x = x.view(-1, 45) if self.hard_coded else x.view(x.size(0), -1)
        x = F.dropout(torch.sigmoid(self.fc1(x)) * 2.0, 0.5, self.training)
        return self.fc3(F.gelu(self.fc2(x)).contiguous())


class PreActivation(nn.Module):
    """A block that normalises before it convolves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 5, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 4, 3, padding=1, bias=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.conv1(F.relu(self.norm1(x)))
        x = x + self.conv2(F.relu(self.norm2(y)))
        return self.head(x.mean((2, 3)))


class Branching(nn.Module):
    """Its way hangs on its numbers, in the root or in a part."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x)) if x.sum() > 0 else x
