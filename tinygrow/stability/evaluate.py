"""A program run on images."""

from collections.abc import Iterable

import torch

from tinygrow.stability.linear_maps import linear_map, maximum, offset
from tinygrow.stability.program import Add, Flatten, Input, MaxPool, Program, ReLU, Unsupported


def evaluate(
    program: Program, images: torch.Tensor, keep: Iterable[str]
) -> dict[str, torch.Tensor]:
    """Return the values of some nodes.

    Args:
        program: to run.
        images: normalised, (B, C, H, W), of the type to compute in.
        keep: names of the nodes; those behind an operation that is not supported are left out.

    Returns:
        (B, ...) of each name.
    """
    wanted, values = set(keep), {}
    last_use = {name: i for i, node in enumerate(program.nodes) for name in node.inputs}
    for i, node in enumerate(program.nodes):
        if isinstance(node, Input):
            values[node.name] = images
        elif not isinstance(node, Unsupported) and all(name in values for name in node.inputs):
            read = [values[name] for name in node.inputs]
            if isinstance(node, ReLU):
                result = read[0].clamp(min=0)
            elif isinstance(node, Add):
                result = read[0] + read[1]
            elif isinstance(node, Flatten):
                result = read[0].flatten(1)
            elif isinstance(node, MaxPool):
                result = maximum(node, read[0])
            else:
                result = linear_map(node, images.dtype)(read[0])  # type: ignore[arg-type]
                result = result + offset(node, images.dtype)  # type: ignore[arg-type]
            values[node.name] = result
        for name in node.inputs:
            if last_use[name] == i and name not in wanted:
                values.pop(name, None)
    return {name: value for name, value in values.items() if name in wanted}


def normalised(program: Program, images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images (B, C, H, W) as the shipped graph normalises them, in float32."""
    scale, shift = (v.reshape(1, -1, 1, 1) for v in (program.input.scale, program.input.shift))
    return images.to(torch.float32) * scale + shift


def inside(program: Program, images: torch.Tensor) -> torch.Tensor:
    """Return float32 images moved into the domain's box."""
    lower, upper = (v.reshape(-1, 1, 1) for v in (program.input.lower, program.input.upper))
    ends = []
    for end, away in ((lower, torch.inf), (upper, -torch.inf)):
        single = end.float()
        beyond = single.double() < end if away > 0 else single.double() > end
        ends.append(
            torch.where(beyond, torch.nextafter(single, torch.full_like(single, away)), single)
        )
    return images.clamp(*ends)
