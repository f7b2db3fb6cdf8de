"""Small images, recipes and networks for the tests of training."""

from typing import Any

import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.data.prepared import DataCard, Split
from tinygrow.networks.build import build_network
from tinygrow.settings.training import AugmentationSettings, TrainingSettings
from tinygrow.training.batches import DeviceImages, TrainingStream

CPU = torch.device("cpu")
PLAIN = AugmentationSettings(crop_padding=0, flip="off", cutout=0)
CLASSES = 3


def make_split(count: int, shape: tuple[int, int, int] = (3, 5, 7), seed: int = 0) -> Split:
    """Random pixels; the labels number the images, so that a batch tells which it holds."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count))


def make_card(channels: int = 3) -> DataCard:
    return DataCard(
        name="small",
        source="random",
        classes=tuple("abc"),
        shape=(channels, 5, 7),
        mean=(0.5, 0.44, 0.31)[:channels],
        std=(0.25, 0.3, 0.21)[:channels],
        counts={},
    )


def make_stream(
    count: int,
    augmentation: AugmentationSettings = PLAIN,
    *,
    seed: int = 0,
    shape: tuple[int, int, int] = (3, 5, 7),
) -> TrainingStream:
    """A stream whose labels number the images."""
    images = DeviceImages(make_split(count, shape), make_card(shape[0]), CPU)
    return TrainingStream(images, augmentation, seed)


def classified(count: int, *, seed: int = 0) -> DeviceImages:
    """Grey 4x4 images of three classes that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    noise = torch.randint(0, 60, (count, 1, 4, 4), generator=generator)
    images = (noise + 80 * labels[:, None, None, None]).to(torch.uint8)
    return DeviceImages(Split(images, labels), make_card(1), CPU)


def classified_stream(count: int, *, seed: int = 0) -> TrainingStream:
    return TrainingStream(classified(count), PLAIN, seed)


def small_network(seed: int = 0) -> nn.Module:
    """A residual network for `classified` images."""
    return build_network(
        Architecture(
            kind="resnet",
            input_shape=(1, 4, 4),
            classes=CLASSES,
            stage_widths=(3, 4),
            blocks=(1, 1),
            middle_widths=(2, 5),
        ),
        seed,
    )


def recipe(**changes: Any) -> TrainingSettings:
    """Plain SGD without augmentation, but for `changes`."""
    return TrainingSettings(**{"augmentation": PLAIN, "batch_size": 8, **changes})


def weights(network: nn.Module) -> list[torch.Tensor]:
    """Copies of all parameters and buffers."""
    return [value.detach().clone() for value in network.state_dict().values()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
