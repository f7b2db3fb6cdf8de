"""Images that show a unit on the other side of zero: far cheaper than a failed proof."""

import torch

from tinygrow.stability.evaluate import evaluate, inside, normalised
from tinygrow.stability.found import Kind
from tinygrow.stability.ledger import Ledger

_BATCH = 64
_ROWS = 256  # searches at once


def look_at_data(ledger: Ledger, images: torch.Tensor) -> None:
    """Show the ledger what a data set shows.

    A fast pass in float32 picks the few images that show anything new; those alone are run in
    float64.

    Args:
        ledger: to fill in.
        images: uint8 (N, C, H, W).
    """
    names = list(ledger.width)
    above, below = ({n: seen[n] >= 0 for n in names} for seen in (ledger.above, ledger.below))
    for begin in range(0, len(images), _BATCH):
        if not ledger.any_open():
            return
        batch = normalised(ledger.program, images[begin : begin + _BATCH])
        with torch.no_grad():
            values = evaluate(ledger.program, batch, names)
        telling: set[int] = set()
        for name, value in values.items():
            flat = value.flatten(2) if value.ndim > 2 else value[..., None]
            for seen, tops in ((above[name], flat.amax(2)), (below[name], -flat.amin(2))):
                new = ~seen & (tops > 0).any(0)
                telling.update((tops[:, new] > 0).int().argmax(0).tolist())
                seen |= new
        ledger.see(batch[sorted(telling)])


def search(ledger: Ledger, steps: int, starts: int, seed: int = 0) -> None:
    """Climb the pre-activation of each open unit up, or down, by signs of its gradient.

    What is found is put onto whole pixel values where that shows it as well.

    Args:
        ledger: to fill in.
        steps: of each climb; 0: none.
        starts: climbs for each unit: from the witnesses kept, and from random corners of the box.
        seed: of the random corners.
    """
    if not steps:
        return
    generator = torch.Generator().manual_seed(seed)
    kinds: tuple[Kind, Kind] = ("inactive", "active")
    for layer in ledger.width:
        goals = [
            (i, 1.0 if k == "inactive" else -1.0) for k in kinds for i in ledger.open(layer, k)
        ]
        per_batch = max(1, _ROWS // starts)
        for begin in range(0, len(goals), per_batch):
            found = _climb(
                ledger, layer, goals[begin : begin + per_batch], steps, starts, generator
            )
            ledger.see(_on_pixels(ledger, found))
            ledger.see(inside(ledger.program, found))


def _climb(
    ledger: Ledger,
    layer: str,
    goals: list[tuple[int, float]],
    steps: int,
    starts: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the best image of each climb, (goals * starts, C, H, W)."""
    box = ledger.program.input
    lower, upper = (v.reshape(-1, 1, 1).float() for v in (box.lower, box.upper))
    units = torch.tensor([unit for unit, _ in goals]).repeat_interleave(starts)
    signs = torch.tensor([sign for _, sign in goals]).repeat_interleave(starts)
    x = _starts(ledger, len(units), generator)
    rows = torch.arange(len(units))
    best, best_height = x.clone(), torch.full((len(x),), -torch.inf)
    for step in range(steps + 1):
        x.requires_grad_(True)
        with torch.enable_grad():
            value = evaluate(ledger.program, x, [layer])[layer]
            flat = (value.flatten(2) if value.ndim > 2 else value[..., None])[rows, units]
            height = (flat * signs[:, None]).amax(1)
            (gradient,) = torch.autograd.grad(height.sum(), x)
        better = height.detach() > best_height
        best[better], best_height[better] = x.detach()[better], height.detach()[better]
        # The first step goes to a corner, which is where a linear function has its maximum.
        length = (upper - lower) * 0.9**step if step else upper - lower
        x = (x.detach() + gradient.sign() * length).clamp(lower, upper)
    return best


def _starts(ledger: Ledger, count: int, generator: torch.Generator) -> torch.Tensor:
    box = ledger.program.input
    lower, upper = (v.reshape(1, -1, 1, 1).float() for v in (box.lower, box.upper))
    corners = torch.rand((count, *box.shape), generator=generator) < 0.5
    x = torch.where(corners, upper.expand(count, *box.shape), lower)
    for row in range(0, count if ledger.images else 0, 2):
        pick = int(torch.randint(len(ledger.images), (), generator=generator))
        x[row] = ledger.images[pick]
    return x


def _on_pixels(ledger: Ledger, images: torch.Tensor) -> torch.Tensor:
    """Return normalised images with every pixel at the nearest of its 256 values."""
    box = ledger.program.input
    scale, shift = (v.reshape(1, -1, 1, 1) for v in (box.scale, box.shift))
    pixels = ((images - shift) / scale).round().clamp(0, 255).to(torch.uint8)
    return normalised(ledger.program, pixels)
