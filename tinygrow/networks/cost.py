"""What a network costs: parameters and multiply-adds."""

import math
from dataclasses import dataclass

import torch
from torch import nn

TRAINING_PASSES = 3
"""Forward passes that a training step costs as much as: one forward, two backward."""


@dataclass(frozen=True, slots=True)
class LayerShape:
    """A convolution or linear layer in a network, at one size of images.

    Attributes:
        inputs: channels (or features) that one output reads.
        outputs: channels (or features).
        taps: entries of the kernel; 1 for a linear layer.
        biased: whether it has a bias.
        input_size: height and width of the map that it reads; () for a linear layer.
        output_size: likewise of the map that it makes.
    """

    inputs: int
    outputs: int
    taps: int
    biased: bool
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]

    @property
    def multiply_adds(self) -> int:
        """Of one image."""
        return self.inputs * self.outputs * self.taps * math.prod(self.output_size)

    @property
    def patch(self) -> int:
        """Entries that one output position reads, with one for the bias."""
        return self.inputs * self.taps + self.biased


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def layer_shapes(
    network: nn.Module, input_shape: tuple[int, int, int]
) -> list[tuple[str, LayerShape]]:
    """Return module path and shape of each convolution and linear layer, in the order they run.

    Args:
        network: any module of Conv2d and Linear layers; on the device `meta` nothing is computed.
        input_shape: channels, height, width.
    """
    found: list[tuple[str, LayerShape]] = []

    def watch(name: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            weight = layer.get_parameter("weight")
            linear = isinstance(layer, nn.Linear)  # tokens may stand before its features
            shape = LayerShape(
                inputs=weight.shape[1],
                outputs=weight.shape[0],
                taps=math.prod(weight.shape[2:]),
                biased=layer.bias is not None,
                input_size=() if linear else tuple(inputs[0].shape[2:]),
                output_size=tuple(output.shape[1:-1] if linear else output.shape[2:]),
            )
            found.append((name, shape))

        return layer.register_forward_hook(note)

    handles = [
        watch(name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    modes = [(module, module.training) for module in network.modules()]
    parameter = next(network.parameters())
    try:
        network.eval()
        network(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        for module, mode in modes:
            module.training = mode
        for handle in handles:
            handle.remove()
    return found


def count_multiply_adds(network: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the multiply-adds of convolutions and linear layers for one image.

    Args:
        network: any module of Conv2d and Linear layers.
        input_shape: channels, height, width.
    """
    return sum(shape.multiply_adds for _, shape in layer_shapes(network, input_shape))
