"""What new neurons cost: parameters, multiply-adds, milliseconds of a forward pass."""

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tinygrow.growth.sites import Site
from tinygrow.growth.surgery import NewUnits, fan_out_of, widen
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.training.device import full_float32

WARM_UP = 3
RUNS = 15
"""Forward passes of each network that are not timed, and that are."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a network costs, or one more neuron.

    Attributes:
        parameters: trainable numbers.
        multiply_adds: of convolutions and linear layers, an image.
    """

    parameters: int
    multiply_adds: int


def price_of(network: nn.Module, input_shape: tuple[int, int, int]) -> Price:
    """Return what the network costs."""
    return Price(count_parameters(network), count_multiply_adds(network, input_shape))


def price_of_neuron(network: nn.Module, site: Site, input_shape: tuple[int, int, int]) -> Price:
    """Return what each further neuron at a site costs, while all else keeps its width."""
    before = price_of(network, input_shape)
    after = price_of(with_blank_units(network, site, 1), input_shape)
    return Price(after.parameters - before.parameters, after.multiply_adds - before.multiply_adds)


def with_blank_units(network: nn.Module, site: Site, count: int) -> nn.Module:
    """Return a copy of the network with `count` more neurons of weight zero."""
    wide = copy.deepcopy(network)
    first, second = site.layers(wide)
    units = NewUnits(
        first.weight.new_zeros(count, *first.weight.shape[1:]),
        None if first.bias is None else first.bias.new_zeros(count),
        second.weight.new_zeros(len(second.weight), count, *fan_out_of(first, second).shape[2:]),
    )
    widen(wide, site, units)
    return wide


@torch.no_grad()
def milliseconds(
    networks: Sequence[nn.Module], input_shape: tuple[int, int, int], batch: int
) -> list[float]:
    """Return the median time of a forward pass of every network, in evaluation mode.

    The networks take turns, so that whatever else the machine does falls on all of them.

    Args:
        networks: on one device; not changed.
        input_shape: channels, height, width.
        batch: images of a pass.
    """
    device = next(networks[0].parameters()).device
    images = torch.zeros(batch, *input_shape, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    times: list[list[float]] = [[] for _ in networks]
    still = [copy.deepcopy(network).eval() for network in networks]
    with full_float32():
        for turn in range(WARM_UP + RUNS):
            for network, found in zip(still, times, strict=True):
                _wait(device)
                started = time.perf_counter()
                network(images)
                _wait(device)
                if turn >= WARM_UP:
                    found.append(1e3 * (time.perf_counter() - started))
    return [statistics.median(found) for found in times]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
