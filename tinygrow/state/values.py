"""Copies of live values that later work cannot change."""

from typing import Any

import torch


def copied(value: Any) -> Any:
    """Return a deep copy with every tensor on the CPU.

    Strides are kept: convolutions on channels-last weights add in another order than on
    contiguous ones, so a resumed run would differ in the last bit.

    Args:
        value: tensors, plain values, and dicts, lists and tuples of them.
    """
    match value:
        case torch.Tensor():
            return value.detach().to("cpu", copy=True)
        case dict():
            return {key: copied(item) for key, item in value.items()}
        case list():
            return [copied(item) for item in value]
        case tuple():
            return tuple(copied(item) for item in value)
        case _:
            return value


def load_weights(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Give a network saved weights with their strides, on the device it is on."""
    device = next(network.parameters()).device
    placed = {name: copied(tensor).to(device) for name, tensor in weights.items()}
    network.load_state_dict(placed, assign=True)
