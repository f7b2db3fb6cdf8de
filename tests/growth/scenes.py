"""Small networks and data on which growth is watched."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.data.prepared import DataCard, Split
from tinygrow.growth.patches import taps
from tinygrow.growth.sites import Site
from tinygrow.growth.surgery import NewUnits, widen
from tinygrow.networks.build import build_network
from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings, StatisticsSettings
from tinygrow.settings.training import AugmentationSettings, TrainingSettings
from tinygrow.training.batches import Batch, DeviceImages, TrainingStream

EXACT = StatisticsSettings(dtype="float64")
SITE = Site(depth=2, index=0, first="first", norm=None, second="second")
NORMED_SITE = Site(depth=2, index=0, first="first", norm="norm", second="second")

NEVER = 2.0
"""As `min_gain` it rejects every extension: no network can lose twice its loss."""

Activation = Callable[[torch.Tensor], torch.Tensor]


class PairNet(nn.Module):
    """first - (norm) - activation - second - (norm) - tanh - linear head, in float64.

    The parts can be called one by one, so that a test can take the forward pass apart.
    """

    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        x: torch.Tensor,
        activation: Activation = torch.tanh,
        normed: bool = False,
    ) -> None:
        super().__init__()
        self.first, self.second, self.activation = first, second, activation
        width, outputs = first.weight.shape[0], second.weight.shape[0]
        self.norm: nn.Module = nn.BatchNorm2d(width) if normed else nn.Identity()
        self.norm2: nn.Module = nn.BatchNorm2d(outputs) if normed else nn.Identity()
        self.double()
        with torch.no_grad():
            features = self.second(self.first(x.double()))[0].numel()
        self.head = nn.Linear(features, 3).double()

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.first(x)))

    def tail(self, a: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.norm2(a)).flatten(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.second(self.hidden(x)))


def identity(x: torch.Tensor) -> torch.Tensor:
    return x


def linear_pair(
    images: int = 40,
    widths: tuple[int, int, int] = (5, 4, 6),
    activation: Activation = torch.tanh,
    seed: int = 0,
) -> tuple[PairNet, Batch]:
    torch.manual_seed(seed)
    inputs, hidden, outputs = widths
    x, y = torch.randn(images, inputs, dtype=torch.float64), torch.randint(3, (images,))
    network = PairNet(nn.Linear(inputs, hidden), nn.Linear(hidden, outputs), x, activation)
    return network, (x, y)


def token_pair(images: int = 7, tokens: int = 3, seed: int = 0) -> tuple[PairNet, Batch]:
    """Return two linear layers that every token of an image goes through."""
    torch.manual_seed(seed)
    x = torch.randn(images, tokens, 5, dtype=torch.float64)
    network = PairNet(nn.Linear(5, 4), nn.Linear(4, 6), x, torch.relu)
    return network, (x, torch.randint(3, (images,)))


def conv_pair(
    images: int = 6,
    channels: tuple[int, int, int] = (2, 3, 4),
    size: tuple[int, int] = (5, 6),
    activation: Activation = torch.tanh,
    normed: bool = False,
    seed: int = 0,
    first: dict | None = None,
    second: dict | None = None,
) -> tuple[PairNet, Batch]:
    """Return two convolutions (3x3, stride 1, padding 1 unless said otherwise) and a batch."""
    torch.manual_seed(seed)
    default = {"kernel_size": 3, "padding": 1}
    x = torch.randn(images, channels[0], *size, dtype=torch.float64)
    y = torch.randint(3, (images,))
    network = PairNet(
        nn.Conv2d(channels[0], channels[1], **(default | (first or {}))),
        nn.Conv2d(channels[1], channels[2], **(default | (second or {}))),
        x,
        activation,
        normed,
    )
    return network, (x, y)


def site_of(network: PairNet) -> Site:
    return SITE if isinstance(network.norm, nn.Identity) else NORMED_SITE


def desired_update_alone(network: PairNet, batch: Batch, smoothing: float = 0.0) -> torch.Tensor:
    """Return V, one image at a time: minus the gradient of that image's own loss."""
    rows = []
    for x, y in zip(*batch, strict=True):
        a = network.second(network.hidden(x[None])).detach().requires_grad_()
        logs = F.log_softmax(network.tail(a), 1)[0]
        loss = -(1 - smoothing) * logs[y] - smoothing * logs.mean()
        rows.append(-torch.autograd.grad(loss, a)[0])
    return torch.cat(rows)


def random_units(network: nn.Module, site: Site, count: int, seed: int = 5) -> NewUnits:
    generator = torch.Generator().manual_seed(seed)
    first, second = site.layers(network)
    dtype = first.weight.dtype

    read = second.weight.shape[2:]
    if isinstance(first, nn.Conv2d) and isinstance(second, nn.Linear):
        read = (taps(first, second),)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return NewUnits(
        draw(count, *first.weight.shape[1:]),
        None if first.bias is None else draw(count),
        draw(second.weight.shape[0], count, *read),
    )


def widened(network: PairNet, units: NewUnits) -> PairNet:
    wide = copy.deepcopy(network)
    widen(wide, site_of(network), units)
    return wide


def mean_loss(network: nn.Module, batches: list) -> float:
    """Return the mean loss with BatchNorm of each mini-batch, image by image."""
    network = copy.deepcopy(network).train()
    losses = []
    for x, y in batches:
        with torch.no_grad():
            logs = torch.log_softmax(network(x), 1)
        losses += [-float(logs[i, label]) for i, label in enumerate(y)]
    return sum(losses) / len(losses)


def resnet(
    widths: tuple[int, ...] = (4, 8),
    middle: tuple[int, ...] = (1, 2),
    size: int = 8,
    seed: int = 0,
) -> tuple[nn.Module, Architecture]:
    """Return a network of one block a stage, with its architecture."""
    architecture = Architecture(
        kind="resnet",
        input_shape=(3, size, size),
        classes=3,
        stage_widths=widths,
        blocks=(1,) * len(widths),
        middle_widths=middle,
    )
    return build_network(architecture, seed), architecture


def perceptron(hidden: tuple[int, ...] = (4, 4), seed: int = 0) -> tuple[nn.Module, Architecture]:
    architecture = Architecture(kind="mlp", input_shape=(3, 8, 8), classes=3, middle_widths=hidden)
    return build_network(architecture, seed), architecture


CARD = DataCard(
    name="patterns",
    source="a noisy pattern for each class",
    classes=("a", "b", "c"),
    shape=(3, 8, 8),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    counts={"train": 96, "validation": 30, "test": 0},
)


def patterns(count: int, seed: int) -> DeviceImages:
    """Return images that can be learnt: the pattern of the class under strong noise."""
    generator = torch.Generator().manual_seed(99)
    templates = torch.randn(3, 3, 2, 2, generator=generator).repeat_interleave(4, 2)
    templates = templates.repeat_interleave(4, 3)
    generator.manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.randn(count, 3, 8, 8, generator=generator)
    pixels = 128 + 30 * templates[labels] + 50 * noise
    split = Split(pixels.clamp(0, 255).to(torch.uint8), labels)
    return DeviceImages(split, CARD, torch.device("cpu"))


def stream(count: int = 96, seed: int = 0) -> TrainingStream:
    augmentation = AugmentationSettings(crop_padding=1, flip="off")
    return TrainingStream(patterns(count, seed=1), augmentation, seed)


def quick_settings(**changes: object) -> GrowthSettings:
    """Return settings for runs of a second."""
    values: dict = {
        "extensions": 3,
        "epochs_between": 0.5,
        "statistics": StatisticsSettings(min_images=64, max_images=64, batch_size=32),
        "amplitude": AmplitudeSettings(images=64, smallest_exponent=-12),
        "training": TrainingSettings(batch_size=16, learning_rate=0.05),
    }
    return GrowthSettings(**(values | changes))
