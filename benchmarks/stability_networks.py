"""The fully connected classifiers of the paper on exact compression, and its two recipes.

Serra, Yu, Kumar, Ramalingam, NeurIPS 2021 (exact_compression.md, sections 0 and 3): hidden layers
of one width, cross entropy plus l1 on all weights; SGD (momentum 0.9, 0.01 times 0.1 every 50
epochs, 120 epochs) or Adam (1e-3, 50 epochs), batches of 128. The two versions of the paper
disagree.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.data.digits import load_digits
from tinygrow.data.prepared import DataCard
from tinygrow.networks.build import build_network
from tinygrow.settings.data import DigitsSettings
from tinygrow.stability.program import Program, program_of


@dataclass(frozen=True, slots=True)
class Data:
    """Images to train and to test on.

    Attributes:
        card: of the data; images are used as they are, divided by 255.
        train: uint8 (N, C, H, W).
        train_labels: int64 (N,).
        test: uint8.
        test_labels: int64.
    """

    card: DataCard
    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


def digits() -> Data:
    """Return scikit-learn's digits, upsampled to 28 x 28, and shifted by up to one pixel.

    There are 1,437 of them to train on; nine shifts make 12,933.
    """
    source = load_digits(DigitsSettings(size=28))
    train, labels = torch.from_numpy(source.train.images), torch.from_numpy(source.train.labels)
    wide = F.pad(train, (1, 1, 1, 1))
    shifts = [wide[..., i : i + 28, j : j + 28] for i in range(3) for j in range(3)]
    return Data(
        _card("digits", source.classes, (1, 28, 28)),
        torch.cat(shifts),
        labels.repeat(9),
        torch.from_numpy(source.test.images),
        torch.from_numpy(source.test.labels),
    )


def _card(name: str, classes: tuple[str, ...], shape: tuple[int, int, int]) -> DataCard:
    """Mean 0 and deviation 1, as the paper's own code has it."""
    zeros, ones = (0.0,) * shape[0], (1.0,) * shape[0]
    return DataCard(
        name=name, source=name, classes=classes, shape=shape, mean=zeros, std=ones, counts={}
    )


def given(name: str, tensors: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Data:
    """Return images from tensors: uint8 (N, C, H, W) and int64 (N,) under `train` and `test`."""
    (train, train_labels), (test, test_labels) = tensors["train"], tensors["test"]
    classes = tuple(map(str, range(int(train_labels.max()) + 1)))
    shape = (int(train.shape[1]), int(train.shape[2]), int(train.shape[3]))
    return Data(_card(name, classes, shape), train, train_labels, test, test_labels)


def untrained(data: Data, widths: tuple[int, ...], seed: int) -> nn.Module:
    """Return a fully connected network."""
    architecture = Architecture(
        kind="mlp",
        input_shape=data.card.shape,
        classes=len(data.card.classes),
        middle_widths=widths,
    )
    return build_network(architecture, seed)


def train(
    network: nn.Module,
    data: Data,
    *,
    recipe: str,
    l1: float,
    seed: int,
    epochs: int | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> nn.Module:
    """Train by a recipe, with the subgradient of l1 on the weights of dense layers.

    Args:
        network: is trained in place.
        data: all of the training images are used.
        recipe: `sgd` or `adam`.
        l1: strength.
        seed: of the order of images.
        epochs: instead of the recipe's; its steps of the learning rate scale along.
        tell: is told of progress.
    """
    full = 120 if recipe == "sgd" else 50
    epochs = full if epochs is None else epochs
    parameters = list(network.parameters())
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Linear)]
    optimizer: torch.optim.Optimizer
    if recipe == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    else:
        optimizer = torch.optim.Adam(parameters, lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(
        optimizer, max(1, round(50 * epochs / 120)), 0.1 if recipe == "sgd" else 1.0
    )
    generator = torch.Generator().manual_seed(seed)
    images = data.train.float() / 255
    for epoch in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(128):
            loss = F.cross_entropy(network(images[rows]), data.train_labels[rows])
            loss.backward()
            for weight in weights if l1 else ():
                assert weight.grad is not None
                weight.grad.add_(weight.detach().sign(), alpha=l1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        schedule.step()
        tell(f"epoch {epoch + 1} of {epochs}")
    return network.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(network: nn.Module, data: Data) -> float:
    """Return the share of test images that are classified rightly, in percent."""
    right = network(data.test.float() / 255).argmax(1) == data.test_labels
    return 100.0 * float(right.double().mean())


def program(network: nn.Module, data: Data) -> Program:
    """Return the program of a trained network."""
    return program_of(network, data.card)
