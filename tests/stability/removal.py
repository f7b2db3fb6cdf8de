"""Small networks with planted units, compressed, and what must hold of the result."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tests.growth.scenes import CARD
from tinygrow.architecture import Architecture
from tinygrow.checkpoint import Checkpoint
from tinygrow.networks.build import build_network
from tinygrow.observer import Observer
from tinygrow.settings.compress import CompressSettings, StabilitySettings
from tinygrow.stability.compress import Compressed, compress
from tinygrow.stability.rewrite import Rewritten, replay

SETTINGS = CompressSettings(stability=StabilitySettings(data_images=0))
NO_IMAGES = torch.zeros(0, *CARD.shape, dtype=torch.uint8)


def randomize(network: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(generator=generator)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.normal_(generator=generator)
                module.weight /= module.weight[0].numel() ** 0.5
                if module.bias is not None:
                    module.bias.normal_(generator=generator)
    return network.eval()


def made(source: nn.Module, architecture: Any = None, **settings: Any) -> Compressed:
    architecture = architecture or Architecture(
        kind="mlp", input_shape=CARD.shape, classes=3, middle_widths=(1,)
    )
    checkpoint = Checkpoint(architecture, source, {})
    return compress(checkpoint, CARD, NO_IMAGES, replace(SETTINGS, **settings), Observer())


def images(count: int = 60) -> torch.Tensor:
    """Return images of the domain, its corners among them, float64."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (count, *CARD.shape), generator=generator)
    pixels[: count // 3] = (pixels[: count // 3] > 127) * 255
    return (pixels.double() / 255 - 0.5) / 0.25


def check_same(done: Compressed) -> None:
    """Assert that float64 outputs are the same to 1e-12, and the steps give this very network."""
    x = images()
    right = copy.deepcopy(done.folded).double()(x)
    found = done.rewritten.network(x)
    scale = float(right.abs().max())
    assert scale > 1e-3
    assert float((found - right).abs().max()) <= 1e-12 * scale
    assert torch.equal(replay(done.folded, done.rewritten.steps)(x), found)
    # As shipped the weights are rounded.
    assert float((copy.deepcopy(done.network).double()(x) - right).abs().max()) <= 1e-5 * scale


def operations(done: Compressed | Rewritten) -> list[str]:
    steps = done.rewritten.steps if isinstance(done, Compressed) else done.steps
    return [step["op"] for step in steps]


def step(done: Compressed, op: str) -> dict[str, Any]:
    return dict(next(s for s in done.rewritten.steps if s["op"] == op))


def mlp(widths: tuple[int, ...] = (9, 8, 7), seed: int = 0) -> tuple[nn.Module, Architecture]:
    architecture = Architecture(kind="mlp", input_shape=CARD.shape, classes=3, middle_widths=widths)
    return randomize(build_network(architecture), seed), architecture


def resnet(seed: int = 0) -> tuple[nn.Module, Architecture]:
    architecture = Architecture(
        kind="resnet",
        input_shape=CARD.shape,
        classes=3,
        stage_widths=(4, 6),
        blocks=(2, 1),
        middle_widths=(5, 4, 6),
    )
    return randomize(build_network(architecture), seed), architecture


class Valid(nn.Module):
    """Convolutions without padding, poolings, a layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3)
        self.two = nn.Conv2d(6, 5, 3, bias=False)
        self.three = nn.Linear(5 * 4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.one(x))
        x = nn.functional.avg_pool2d(torch.relu(self.two(x)), 2)
        return self.head(torch.relu(self.three(x.flatten(1))))


def plant(layer: nn.Module, unit: int, *, weight: float | None = None, bias: float) -> None:
    with torch.no_grad():
        if weight is not None:
            layer.weight[unit] = weight
        layer.bias[unit] = bias
