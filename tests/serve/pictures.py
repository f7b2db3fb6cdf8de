"""Small networks and PNG images for the page."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, PngImagePlugin
from sklearn.datasets import load_digits
from torch import nn

from tests.products.conftest import randomize
from tinygrow.architecture import Architecture
from tinygrow.checkpoint import Checkpoint
from tinygrow.data.prepared import DataCard
from tinygrow.networks.build import build_network
from tinygrow.products.export import export_onnx
from tinygrow.products.fold import fold_batch_norm
from tinygrow.products.metadata import build_metadata
from tinygrow.settings.products import ExportSettings

GREY, COLOUR = (1, 16, 16), (3, 32, 32)
COLOUR_CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's handwritten digits, uint8 (N, 16, 16), and their labels."""
    found = load_digits()
    images = np.minimum(found.images * 16, 255).astype(np.uint8)
    return images.repeat(2, axis=1).repeat(2, axis=2), found.target


def write_grey(path: Path) -> Path:
    """Train a network of one hidden layer on digits for a moment, and export it."""
    images, labels = digits()
    architecture = Architecture(kind="mlp", input_shape=GREY, classes=10, middle_widths=(24,))
    network = build_network(architecture, 0)
    card = _card("digits", tuple("0123456789"), GREY)
    pixels = torch.from_numpy((images[:, None] / 255 - 0.4) / 0.3).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(pixels), torch.from_numpy(labels)).backward()
        optimizer.step()
    return _export(architecture, network.eval(), card, path)


def write_colour(path: Path) -> Path:
    """Export a residual network with random weights, its logits centred to tell images apart."""
    architecture = Architecture(
        kind="resnet",
        input_shape=COLOUR,
        classes=len(COLOUR_CLASSES),
        stage_widths=(8, 16),
        blocks=(1, 1),
        middle_widths=(6, 12),
    )
    network = randomize(build_network(architecture, 0), 1)
    samples = np.stack([np.asarray(_blocks(32, seed)) for seed in range(50, 90)])
    pixels = torch.from_numpy(samples.transpose(0, 3, 1, 2) / 255 - 0.45).float() / 0.28
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        logits = network(pixels)
        scale = 2 / logits.std(0)
        head.weight *= scale[:, None]
        head.bias.copy_(scale * (head.bias - logits.mean(0)))
    return _export(architecture, network, _card("animals", COLOUR_CLASSES, COLOUR), path)


def _card(name: str, classes: tuple[str, ...], shape: tuple[int, int, int]) -> DataCard:
    channels = shape[0]
    return DataCard(
        name=name,
        source="made up",
        classes=classes,
        shape=shape,
        mean=(0.4, 0.45, 0.5)[:channels],
        std=(0.3, 0.25, 0.28)[:channels],
        counts={"train": 8, "validation": 4, "test": 60},
    )


def _export(architecture: Architecture, network: nn.Module, card: DataCard, path: Path) -> Path:
    checkpoint = Checkpoint(architecture, network, {"seed": 0, "growth": {}, "finetune": {}})
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = build_metadata(card.name, checkpoint, card, 90.0)
    export_onnx(fold_batch_norm(network), card, ExportSettings(opset=20), metadata, path)
    return path


def write_grey_images(folder: Path) -> list[Path]:
    """Write PNG images of the grey network's size, of every kind that PNG knows."""
    images, _ = digits()
    made = {f"digit{i:02}": Image.fromarray(images[90 * i]) for i in range(14)}
    one = Image.fromarray(images[5])
    made["bits"] = one.convert("1")
    made["palette"] = one.convert("P")
    made["colours"] = _noise(16, 1)
    made["grey-as-rgb"] = one.convert("RGB")
    made["black"] = Image.new("L", (16, 16), 0)
    made["white"] = Image.new("L", (16, 16), 255)
    return _save(made, folder)


def write_colour_images(folder: Path) -> list[Path]:
    """Likewise for the colour network."""
    made = {f"noise{i:02}": _noise(32, i) for i in range(8)}
    made |= {f"blocks{i:02}": _blocks(32, i) for i in range(8)}
    made["palette"] = _blocks(32, 20).quantize(17)
    made["grey"] = _blocks(32, 21).convert("L")
    made["opaque"] = _blocks(32, 22).convert("RGBA")
    cut = np.asarray(_blocks(32, 23).convert("RGBA")).copy()
    cut[8:20, 4:29, 3] = 0
    made["cut-out"] = Image.fromarray(cut)
    return _save(made, folder)


def write_other_images(folder: Path) -> list[Path]:
    """Write images of other sizes, and such as carry a colour profile or a turn."""
    made = {
        "wide": _blocks(96, 1).resize((211, 97)),
        "tall": _noise(150, 2).crop((0, 0, 61, 150)),
        "small": _blocks(16, 3).crop((0, 0, 11, 13)),
        "large": _blocks(64, 4).resize((1500, 1201)),
        "one": Image.new("RGB", (1, 1), (200, 30, 90)),
    }
    files = _save(made, folder)
    turned = Image.Exif()
    turned[0x0112] = 6
    profiled = PngImagePlugin.PngInfo()
    profiled.add(b"gAMA", (100_000).to_bytes(4, "big"))
    _blocks(40, 5).save(folder / "turned.png", exif=turned)
    _blocks(32, 6).save(folder / "gamma.png", pnginfo=profiled)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    _blocks(32, 7).save(folder / "profile.png", icc_profile=profile)
    return [*files, *(folder / f"{name}.png" for name in ("turned", "gamma", "profile"))]


def _noise(size: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return Image.fromarray(pixels)


def _blocks(size: int, seed: int) -> Image.Image:
    return _noise(4, 100 + seed).resize((size, size), Image.Resampling.BICUBIC)


def _save(images: dict[str, Image.Image], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in images]
