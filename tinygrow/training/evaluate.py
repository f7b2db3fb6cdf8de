"""Loss and accuracy of a network on images that it does not train on."""

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.distributed import add_up, share
from tinygrow.training.batches import DeviceImages
from tinygrow.training.device import full_float32


@torch.no_grad()
def evaluate(
    network: nn.Module, images: DeviceImages, batch_size: int = 1000
) -> tuple[float, float]:
    """Return mean cross-entropy (nats) and accuracy (percent), in evaluation mode and float32.

    Several processes look at a part of the images each, and all get the whole's.

    Args:
        network: on the device of `images`; its mode is restored.
        images: every one is counted.
        batch_size: images a forward pass.
    """
    was_training = network.training
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    try:
        with full_float32():
            for x, y in share(images.batches(batch_size)):
                logits = network(x)
                loss += F.cross_entropy(logits, y, reduction="sum").double()
                correct += (logits.argmax(1) == y).sum()
    finally:
        network.train(was_training)
    add_up(loss), add_up(correct)
    return float(loss) / len(images), 100.0 * float(correct) / len(images)
