"""From an `Architecture` to a module."""

from dataclasses import replace

import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.networks.compressed import restructured
from tinygrow.networks.custom import build_custom
from tinygrow.networks.mlp import MLP
from tinygrow.networks.resnet import ResNet
from tinygrow.products.fold import fold_batch_norm


def build_network(architecture: Architecture, seed: int | None = None) -> nn.Module:
    """Return the network, freshly initialised on the CPU.

    Convolutions and linear layers get Xavier-normal weights with the gain of ReLU and zero biases,
    the initialisation of the authors' code (tiny.md 1.12); a network of the user's keeps its own.

    Args:
        architecture: what to build.
        seed: of the weights; None leaves PyTorch's own initialisation (for loading weights), which
            is all that there is for a compressed network.
    """
    if architecture.compressed:
        before = build_network(replace(architecture, compressed={}))
        return restructured(fold_batch_norm(before), architecture.compressed)
    if architecture.kind == "custom":
        return build_custom(architecture, seed)
    network: nn.Module = (
        ResNet(architecture) if architecture.kind == "resnet" else MLP(architecture)
    )
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        gain = nn.init.calculate_gain("relu")
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight, gain=gain, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return network
