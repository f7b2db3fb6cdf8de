"""What a network costs: parameters and multiply-adds."""

import torch
from torch import nn


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def count_multiply_adds(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the multiply-adds of convolutions and linear layers for one image.

    Args:
        network: any module of Conv2d and Linear layers.
        input_shape: channels, height, width.
    """
    total = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        weight = module.get_parameter("weight")
        positions = output[0].numel() // weight.shape[0]
        total += weight.numel() * positions

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(add) for layer in layers]
    was_training = network.training
    parameter = next(network.parameters())
    try:
        network.eval()
        network(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return total
