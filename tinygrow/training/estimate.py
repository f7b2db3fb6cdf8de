"""How fast this machine trains a network: measured on a copy, before long work."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from tinygrow.networks.cost import TRAINING_PASSES, count_multiply_adds, count_parameters
from tinygrow.settings.training import FinetuneSettings, TrainingSettings
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.device import full_float32
from tinygrow.training.loop import Trainer

LONGEST_STEP = 5.0
"""Seconds; where a whole batch takes longer, a smaller one is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneEstimate:
    """What fine-tuning will take on this machine, or what is left of it.

    Attributes:
        device: on which it was measured.
        parameters: of the network.
        epochs: that are left.
        images: image passes of training that are left.
        images_per_second: of training.
        seconds_training: that are left.
        seconds_evaluation: of looks at the validation images.
        multiply_adds: three forward passes for each image pass of training, one for each
            validation image.
        longest_epochs: that are left if training does not converge; `epochs` where it may not go
            on.
        longest_seconds: likewise, of training and evaluation.
    """

    device: str
    parameters: int
    epochs: float
    images: int
    images_per_second: float
    seconds_training: float
    seconds_evaluation: float
    multiply_adds: float
    longest_epochs: float
    longest_seconds: float

    @property
    def seconds(self) -> float:
        """All that is left, if training converges in time."""
        return self.seconds_training + self.seconds_evaluation

    def lines(self) -> list[str]:
        """Return the estimate as people read it."""
        line = (
            f"fine-tuning on {self.device}: {self.parameters:,} parameters, {self.epochs:g} epochs"
            f" with {self.images:,} image passes of training at {rate(self.images_per_second)}"
            f" images/s ({duration(self.seconds_training)}), evaluation"
            f" {duration(self.seconds_evaluation)}: about {duration(self.seconds)},"
            f" {magnitude(self.multiply_adds)} multiply-adds"
        )
        if self.longest_epochs > self.epochs:
            line += (
                f"; up to {self.longest_epochs:g} epochs, {duration(self.longest_seconds)}, if it"
                " has not converged by then"
            )
        return [line]


def estimate_finetune(
    network: nn.Module,
    stream: TrainingStream,
    settings: FinetuneSettings,
    *,
    validation_images: int,
    done_images: int = 0,
) -> FinetuneEstimate:
    """Measure how fast `network` trains and is evaluated; nothing that fine-tuning uses changes.

    Args:
        network: on the stream's device.
        stream: training images.
        settings: epochs and recipe.
        validation_images: images of each look in between.
        done_images: image passes of training that are done already.
    """
    speed = images_per_second(network, stream, settings.training)
    forward = forward_seconds(network, stream.images, settings.training.batch_size)
    height, width, channels = stream.images.images_NHWC.shape[1:]
    cost = count_multiply_adds(network, (channels, height, width))

    def left(epochs: int) -> tuple[int, int]:
        """Return image passes of training and of validation."""
        every, past = settings.evaluate_every, done_images // len(stream)
        looks = {0, settings.epochs, epochs, *range(every, epochs, every)}
        waiting = sum(epoch > past or not done_images for epoch in looks)
        return max(0, epochs * len(stream) - done_images), waiting * validation_images

    images, evaluated = left(settings.epochs)
    longest = max(settings.epochs, settings.max_epochs)
    more, more_evaluated = left(longest)
    return FinetuneEstimate(
        device=str(stream.images.device),
        parameters=count_parameters(network),
        epochs=round(images / len(stream), 1),
        images=images,
        images_per_second=speed,
        seconds_training=images / speed,
        seconds_evaluation=evaluated * forward,
        multiply_adds=float(cost) * (TRAINING_PASSES * images + evaluated),
        longest_epochs=round(more / len(stream), 1),
        longest_seconds=more / speed + more_evaluated * forward,
    )


def images_per_second(
    network: nn.Module, stream: TrainingStream, settings: TrainingSettings, seconds: float = 0.5
) -> float:
    """Return the speed of training steps; neither network nor stream is changed.

    Args:
        network: on the stream's device.
        stream: its images are used, its random state is not.
        settings: the recipe, with its batch size.
        seconds: length of the measurement, but at least one step.
    """
    own = TrainingStream(stream.images, stream.augmentation, seed=0)
    # Without moving: hundreds of steps from here could diverge where the real plan does not.
    still = replace(settings, learning_rate=1e-12)
    trainer = Trainer(copy.deepcopy(network), own, still, total_epochs=1.0)

    def step(size: int) -> None:
        trainer.batch_size = float(size)
        trainer.train(size / len(own))  # waits for a GPU to finish

    return _speed(step, min(settings.batch_size, len(own)), seconds)


def forward_seconds(
    network: nn.Module, images: DeviceImages, batch_size: int, seconds: float = 0.1
) -> float:
    """Return the seconds a forward pass takes an image, in full float32 and without gradients.

    Args:
        network: on the device of the images; not changed.
        images: are looked at in evaluation mode.
        batch_size: images of a pass.
        seconds: length of the measurement, but at least one pass.
    """
    still = copy.deepcopy(network).eval()

    @torch.no_grad()
    def step(size: int) -> None:
        with full_float32():
            still(images.normalize(images.images_NHWC[:size])).sum().item()  # waits for a GPU

    return 1.0 / _speed(step, min(batch_size, len(images)), seconds)


def _speed(step: Callable[[int], object], size: int, seconds: float) -> float:
    """Return images a second of `step(images)`, called with `size` or as many as are affordable."""
    few = min(2, size)
    step(few)  # the first step of a process makes much that later ones find
    started = time.perf_counter()
    step(few)
    an_image = (time.perf_counter() - started) / few
    if an_image * size > LONGEST_STEP:
        size = max(few, int(LONGEST_STEP / an_image))
    if an_image * size < seconds:
        step(size)
    images, started = 0, time.perf_counter()
    while True:
        step(size)
        images += size
        if time.perf_counter() - started >= seconds:
            return images / (time.perf_counter() - started)


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def magnitude(count: float) -> str:
    """Return a count with two digits, such as `2.7e15`."""
    return f"{count:.1e}".replace("e+0", "e").replace("e+", "e")


def rate(per_second: float) -> str:
    """Return a speed with two digits at least, such as `0.13`, `4.2` or `1,250`."""
    if per_second >= 10:
        return f"{per_second:,.0f}"
    return f"{per_second:.2g}"
