"""Requests to methods of growth, and networks that have learnt something."""

import torch
from torch import nn

from tests.growth.scenes import perceptron, resnet, stream
from tinygrow.architecture import Architecture
from tinygrow.growth.neurons.proposal import Request
from tinygrow.growth.sites import Site
from tinygrow.settings.growth import GrowthSettings
from tinygrow.training.batches import Batch
from tinygrow.training.loop import Trainer


def request(
    network: nn.Module,
    site: Site,
    batch: Batch,
    settings: GrowthSettings,
    count: int = 3,
    seed: int = 0,
) -> Request:
    """Return a request whose samples are always the leading images of one batch."""
    return Request(
        network=network,
        site=site,
        count=count,
        sample=lambda images: [(batch[0][:images], batch[1][:images])],
        available=len(batch[1]),
        settings=settings,
        generator=torch.Generator().manual_seed(seed),
    )


def trained(kind: str, settings: GrowthSettings) -> tuple[Trainer, Architecture]:
    """Return a trainer whose small network has seen every image once."""
    network, architecture = resnet(middle=(2, 2)) if kind == "resnet" else perceptron((4, 4))
    trainer = Trainer(network, stream(), settings.training, total_epochs=10.0)
    trainer.train(1.0)
    return trainer, architecture
