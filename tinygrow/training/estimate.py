"""How fast this machine trains a network: measured on a copy, before long work."""

import copy
import time
from dataclasses import replace

import torch
from torch import nn

from tinygrow.settings.training import TrainingSettings
from tinygrow.training.batches import TrainingStream
from tinygrow.training.loop import Trainer


def images_per_second(
    network: nn.Module, stream: TrainingStream, settings: TrainingSettings, seconds: float = 0.5
) -> float:
    """Return the speed of training steps; neither network nor stream is changed.

    Args:
        network: on the stream's device.
        stream: its images are used, its random state is not.
        settings: the recipe, with its batch size.
        seconds: length of the measurement, after one warm-up step.
    """
    own = TrainingStream(stream.images, stream.augmentation, seed=0)
    # Without moving: hundreds of steps from here could diverge where the real plan does not.
    still = replace(settings, learning_rate=1e-12)
    trainer = Trainer(copy.deepcopy(network), own, still, total_epochs=1.0)
    step = min(settings.batch_size, len(own)) / len(own)
    trainer.train(step)
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        images += trainer.train(step).images
    if stream.images.device.type == "cuda":
        torch.cuda.synchronize(stream.images.device)
    return images / (time.perf_counter() - started)


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
