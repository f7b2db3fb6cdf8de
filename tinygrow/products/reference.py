"""PyTorch's own answer, by a path that shares nothing with the exported file."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tinygrow.data.prepared import DataCard
from tinygrow.observer import Observer


@torch.inference_mode()
def torch_logits(
    network: nn.Module,
    card: DataCard,
    images: NDArray[np.uint8],
    observer: Observer | None = None,
    batch_size: int = 256,
) -> NDArray[np.float32]:
    """Return the network's logits (N, classes) on the CPU in float32.

    The normalisation is written out here, (x / 255 - mean) / std, rather than shared with export:
    the gate compares the two.

    Args:
        network: in evaluation mode, on the CPU.
        card: mean and standard deviation of the channels.
        images: uint8 (N, C, H, W).
        observer: told of the progress.
        batch_size: images at once.
    """
    observer = observer or Observer()
    mean = torch.tensor(card.mean).reshape(1, -1, 1, 1)
    std = torch.tensor(card.std).reshape(1, -1, 1, 1)
    parts = []
    with observer.work("PyTorch", len(images), "images"):
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
            parts.append(network((batch.float() / 255 - mean) / std).numpy())
            observer.advance(len(batch))
    return np.concatenate(parts)


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the percentage of rows whose largest logit is at the label."""
    return float(100 * np.mean(logits.argmax(1) == labels))
