"""Loss and accuracy of a network on images that it does not train on."""

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.distributed import add_up, share
from tinygrow.training.batches import DeviceImages
from tinygrow.training.device import full_float32

IMAGES_A_PASS = 250
"""On a CPU: 1,000 were measured to be a third slower (benchmarks/README.md, `training`)."""
PIXELS_A_PASS = 4000 * 32 * 32
"""On a GPU: few launches for small images, and a bound on the memory that large ones take."""


@torch.no_grad()
def evaluate(
    network: nn.Module, images: DeviceImages, batch_size: int | None = None
) -> tuple[float, float]:
    """Return mean cross-entropy (nats) and accuracy (percent), in evaluation mode and float32.

    Several processes look at a part of the images each, and all get the whole's.

    Args:
        network: on the device of `images`; its mode is restored.
        images: every one is counted.
        batch_size: images a forward pass; None: `images_a_pass`.
    """
    size = batch_size or images_a_pass(images)
    was_training = network.training
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    try:
        with full_float32():
            for x, y in share(images.batches(size)):
                logits = network(x)
                loss += F.cross_entropy(logits, y, reduction="sum").double()
                correct += (logits.argmax(1) == y).sum()
    finally:
        network.train(was_training)
    add_up(loss), add_up(correct)
    return float(loss) / len(images), 100.0 * float(correct) / len(images)


def images_a_pass(images: DeviceImages) -> int:
    """Return how many images go through a network at once, where no gradients are kept."""
    if images.device.type == "cpu":
        return IMAGES_A_PASS
    height, width = images.images_NHWC.shape[1:3]
    return max(1, PIXELS_A_PASS // (height * width))
