"""Networks that the tests name in an architecture, right and wrong."""

import torch
from torch import nn

VALUE = 3


def small(input_shape: tuple[int, int, int], classes: int, hidden: int = 7) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(input_shape[0], 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        *(nn.Linear(20, hidden), nn.ReLU(), nn.Linear(hidden, classes)),
    )


def fails(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    raise ValueError("no such thing")


def no_module(input_shape: tuple[int, int, int], classes: int) -> str:
    return "network"


def other_logits(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return small(input_shape, classes + 1)


def nothing_grows(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, classes))


def does_not_run(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(1, 4), nn.Linear(4, classes))


class _Branching(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(192, 4), nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return self.two(self.one(x if x.sum() > 0 else -x))


def untraceable(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return _Branching(classes)


class _Viewing(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Linear(144, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x)
        return self.two(x.view(len(x), -1))


def views(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return _Viewing(classes)
