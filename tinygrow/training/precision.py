"""Whether training steps are computed in bfloat16: chosen by what was measured to pay.

Weights, moments of optimisers, losses, statistics of growth and evaluation are float32 either way.
"""

from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "bfloat16", "auto"]


def is_coarse(choice: Precision, network: nn.Module, device: torch.device) -> bool:
    """Say whether training steps run under bfloat16 autocast.

    `auto` takes bfloat16 on a GPU, and on a CPU that multiplies in it where the network's
    convolutions are in channels-last memory (measured: benchmarks/README.md, `training`).

    Args:
        choice: of the settings.
        network: as it is now; growth may change what is chosen.
        device: where it is trained.
    """
    if choice != "auto":
        return choice == "bfloat16"
    if device.type != "cpu":
        return device.type == "cuda"
    return multiplies_bfloat16() and pays_in_bfloat16(network)


def multiplies_bfloat16() -> bool:
    """Say whether this processor has instructions for bfloat16 products; others are slow at it."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def pays_in_bfloat16(network: nn.Module) -> bool:
    """Say whether a CPU with such instructions trains `network` faster in bfloat16.

    It does if most weights are of convolutions in channels-last memory, however few their channels.
    In contiguous memory the same convolutions can be many times slower than in float32. Groups of
    channels were not measured.
    """
    weights = sum(parameter.numel() for parameter in network.parameters())
    paying = sum(
        layer.weight.numel()
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and layer.weight.is_contiguous(memory_format=torch.channels_last)
    )
    return 2 * paying > weights
