"""Small random networks of every supported operation, and images at the ends of their domain."""

import itertools

import torch
from torch import nn

from tinygrow.data.prepared import DataCard
from tinygrow.stability.program import Program, program_of


def card(shape: tuple[int, int, int], mean: float = 0.4, std: float = 0.3) -> DataCard:
    channels = shape[0]
    return DataCard(
        name="noise",
        source="random numbers",
        classes=("a", "b"),
        shape=shape,
        mean=(mean,) * channels,
        std=(std,) * channels,
        counts={},
    )


def perceptron(
    widths: list[int], inputs: int, seed: int, shift: float = 0.0, zero_rows: bool = False
) -> nn.Sequential:
    """Return a network for images (1, 1, inputs); biases move units towards one side of zero."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in itertools.pairwise([inputs, *widths, 2]):
        layer = nn.Linear(a, b)
        layer.weight.data = torch.randn(b, a, generator=generator) / a**0.5
        layer.bias.data = shift * torch.randn(b, generator=generator)
        if zero_rows:
            layer.weight.data[torch.rand(b, generator=generator) < 0.25] = 0
            layer.bias.data[torch.rand(b, generator=generator) < 0.25] = 0
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval().requires_grad_(False)


class Residual(nn.Module):
    """Convolutions with stride, groups and dilation, a residual sum and every kind of pooling."""

    def __init__(self, seed: int, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(2, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.randn(channels, 1, 1))
        self.move = nn.Parameter(torch.randn(channels, 1, 1))
        self.conv1 = nn.Conv2d(channels, 6, 3, padding=2, dilation=2, groups=2)
        self.conv2 = nn.Conv2d(6, channels, 3, padding=1, bias=False)
        self.next = nn.Conv2d(channels, channels, 3, stride=2)
        self.maximum = nn.MaxPool2d(2, padding=1)
        self.average = nn.AvgPool2d(2, stride=1)
        self.dense = nn.Linear(channels, 5)
        self.head = nn.Linear(5, 2)
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x) * self.scale + self.move)
        x = torch.relu(x + self.conv2(torch.relu(self.conv1(x))))
        x = self.maximum(self.average(torch.relu(self.next(x))))
        x = nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.head(torch.relu(self.dense(x)))


def residual(seed: int) -> Program:
    return program_of(Residual(seed), card((2, 9, 9)))


def dense(network: nn.Module, inputs: int, mean: float = 0.4) -> Program:
    return program_of(network, card((1, 1, inputs), mean))


def samples(program: Program, count: int, seed: int = 0) -> torch.Tensor:
    """Return float64 points of the box: inside, on its faces, and its corners (all, up to 2^8)."""
    box = program.input
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, *box.shape, generator=generator, dtype=torch.float64)
    edges = torch.rand(count, *box.shape, generator=generator, dtype=torch.float64).round()
    mixed = torch.where(uniform < 0.5, edges, uniform)
    shares = torch.cat([uniform, edges, mixed])
    numbers = int(torch.tensor(box.shape).prod())
    if numbers <= 8:
        corners = list(itertools.product((0.0, 1.0), repeat=numbers))
        corners_ = torch.tensor(corners, dtype=torch.float64).reshape(-1, *box.shape)
        shares = torch.cat([shares, corners_])
    lower, upper = (v.reshape(-1, 1, 1) for v in (box.lower, box.upper))
    return torch.lerp(lower, upper, shares).clamp(lower, upper)
