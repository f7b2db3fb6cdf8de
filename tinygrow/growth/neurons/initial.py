"""Random fan-in and fan-out weights as large as those a layer has."""

import torch

from tinygrow.growth.patches import Layer
from tinygrow.growth.surgery import fan_out_of


def fan_in_like(first: Layer, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw (count, ...) fan-in weights with the root mean square of the layer's own."""
    return _like(first.weight, (count, *first.weight.shape[1:]), generator)


def fan_out_like(
    first: Layer, second: Layer, count: int, generator: torch.Generator
) -> torch.Tensor:
    """Draw (outputs, count, ...) fan-out weights with the root mean square of the layer's own."""
    weight = fan_out_of(first, second)
    return _like(weight, (weight.shape[0], count, *weight.shape[2:]), generator)


def zero_bias(first: Layer, count: int) -> torch.Tensor | None:
    """Return the biases of new units: zeros, or None where the layer has none."""
    return None if first.bias is None else first.bias.detach().new_zeros(count)


def _like(weight: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Draw on the CPU, so that every device gets the same numbers."""
    drawn = torch.randn(shape, generator=generator).to(weight.device, weight.dtype)
    return drawn * weight.detach().square().mean().sqrt()
