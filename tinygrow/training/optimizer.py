"""Optimisers, learning-rate schedules, and what becomes of optimiser state at an extension."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from tinygrow.settings.training import TrainingSettings


@dataclass(frozen=True, slots=True)
class Replacement:
    """A parameter that surgery replaced by a wider one.

    Attributes:
        old: no longer part of the network.
        new: its first entries along `dim` are those of `old`.
        dim: the dimension that grew.
    """

    old: nn.Parameter
    new: nn.Parameter
    dim: int


def make_optimizer(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return a fresh optimiser; vectors (biases, normalisation) get no weight decay.

    Its step is one call for all parameters of a group (`fused`), on the CPU as on a GPU.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    optimizer = torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=True,
    )
    if settings.momentum:
        # Zeros are what the first step would make. The fused step cannot make them for some
        # parameters of a group alone, such as those that a first loss did not hang on.
        for parameter in parameters:
            optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    return optimizer


def pad_optimizer(optimizer: torch.optim.Optimizer, replacements: Iterable[Replacement]) -> None:
    """Put new parameters in the old ones' places; their state grows by zeros, steps are kept."""
    swap = {r.old: r for r in replacements}
    for group in optimizer.param_groups:
        group["params"] = [swap[p].new if p in swap else p for p in group["params"]]
    for old, r in swap.items():
        state = optimizer.state.pop(old, None)
        if state is None:
            continue
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == old.shape:
                padded = torch.zeros_like(r.new)  # in its layout, as the fused step needs
                padded.narrow(r.dim, 0, value.shape[r.dim]).copy_(value)
                state[key] = padded
        optimizer.state[r.new] = state


def learning_rate(settings: TrainingSettings, epoch: float, total_epochs: float) -> float:
    """Return the learning rate at a (fractional) epoch of the whole plan.

    Args:
        settings: names the schedule.
        epoch: 0 at the first step.
        total_epochs: length of the plan.
    """
    peak, warmup = settings.learning_rate, settings.warmup_epochs
    if epoch < warmup:
        # Not zero at the first step, which would be a step for nothing.
        return peak * max(epoch / warmup, 0.01)
    if settings.schedule == "constant":
        return peak
    progress = min(1.0, (epoch - warmup) / max(total_epochs - warmup, 1e-12))
    if settings.schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak * (1.0 - progress)
