"""Images outside of the domain, where a compressed network may differ from the one before."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import nn

from tinygrow.data.prepared import DataCard
from tinygrow.products.export import normalization
from tinygrow.products.gate.before import Before

_DISTANCES = (2.0, 10.0, 100.0, 1000.0)
"""From the middle of the domain, in half its sides."""
_IMAGES, _STEPS = 16, 20


@dataclass(frozen=True, slots=True)
class Outside:
    """What a search outside of the domain has found.

    Attributes:
        units: removed ones whose pre-activation depends on the image.
        fired: those of them that it saw on the side of zero where they never are inside.
        difference: the largest of the logits, relative to their scale, in float64.
    """

    units: int
    fired: int
    difference: float


def find_outside(before: Before, card: DataCard) -> Outside:
    """Look for images on which removed units fire, and for the difference that this makes.

    Args:
        before: the network before, and how it was compressed.
        card: of the data, which fixes the domain.
    """
    targets = _targets(before)
    if not targets:
        return Outside(0, 0, 0.0)
    scale, shift = (torch.from_numpy(v).double() for v in normalization(card))
    middle, half = shift + 127.5 * scale, 127.5 * scale
    generator = torch.Generator().manual_seed(0)
    fired: set[int] = set()
    difference = 0.0
    for distance in _DISTANCES:
        noise = torch.rand((_IMAGES, *card.shape), generator=generator, dtype=torch.float64)
        images = middle + distance * half * (2 * noise - 1)
        for step in range(2 * _STEPS):
            images = images.detach().requires_grad_(True)
            sides = _sides(before.exact, images, targets)
            # First every image makes a unit of its own fire, then all that fire make a difference.
            chosen = torch.arange(len(images)) * max(1, len(targets) // len(images)) % len(targets)
            if step < _STEPS:
                goal = sides[torch.arange(len(images)), chosen].sum()
            else:
                goal = (before.exact(images) - before.replayed(images)).abs().sum()
            (gradient,) = torch.autograd.grad(goal, images)
            fired |= set((sides.detach() > 0).any(0).nonzero().flatten().tolist())
            with torch.no_grad():
                images = images + 0.1 * distance * half * gradient.sign()
        with torch.no_grad():
            right, found = before.exact(images), before.replayed(images)
            difference = max(
                difference, float((right - found).abs().max() / right.abs().max().clamp_min(1e-300))
            )
        if fired and difference > 1e-6:
            break
    return Outside(len(targets), len(fired), difference)


def _targets(before: Before) -> list[tuple[str, int, float]]:
    """Return layer, index and sign of the removed units that depend on the image."""
    layers = dict(before.exact.named_modules())
    found = []
    for unit in before.told["units"]:
        sign = {"inactive": 1.0, "active": -1.0}.get(unit["kind"])
        layer = layers.get(unit["layer"])
        if sign is None or unit["action"] == "kept" or layer is None:
            continue
        if bool(layer.get_parameter("weight")[unit["index"]].any()):
            found.append((unit["layer"], unit["index"], sign))
    return found


def _sides(
    network: nn.Module, images: torch.Tensor, targets: list[tuple[str, int, float]]
) -> torch.Tensor:
    """Return (images, targets): how far each unit is on the side where it never is inside."""
    wanted: dict[str, list[int]] = defaultdict(list)
    for number, (layer, _, _) in enumerate(targets):
        wanted[layer].append(number)
    parts: dict[int, torch.Tensor] = {}
    handles = []
    for layer, numbers in wanted.items():

        def keep(
            _: nn.Module, __: object, output: torch.Tensor, numbers: list[int] = numbers
        ) -> None:
            indices = [targets[i][1] for i in numbers]
            signs = output.new_tensor([targets[i][2] for i in numbers])
            values = output.flatten(2).transpose(1, 2) if output.ndim == 4 else output[:, None]
            farthest = (values[..., indices] * signs).amax(1)
            parts.update({i: farthest[:, place] for place, i in enumerate(numbers)})

        handles.append(network.get_submodule(layer).register_forward_hook(keep))
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([parts[i] for i in range(len(targets))], 1)
