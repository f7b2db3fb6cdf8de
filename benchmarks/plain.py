"""The training loop of PyTorch's tutorials, against which ours is timed.

A `DataLoader` with worker processes, torchvision's transforms on PIL images, the network called as
it is: in float32, or with bfloat16 autocast and channels-last memory. Losses stay on the device, so
that nothing waits for a GPU but the loop's end.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.timing import Timer
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.batches import DeviceImages


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images as PIL reads them, cropped, flipped and normalised one by one.

    Args:
        images: the training split, whose pixels are taken to the CPU.
        settings: padding of the crop; every image is flipped with probability 1/2.
        mean: of the data set, by channel, in units of the largest grey level.
        std: likewise.
    """

    def __init__(
        self,
        images: DeviceImages,
        settings: TrainingSettings,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        self._pixels = images.images_NHWC.cpu().numpy()
        self._labels = images.labels.tolist()
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(
                    self._pixels.shape[1:3],
                    padding=settings.augmentation.crop_padding,
                    padding_mode="reflect",
                ),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


class PlainLoop:
    """Training steps as in a tutorial.

    Args:
        network: trained in place, on the CPU or a GPU.
        pictures: the training images.
        settings: batch size and SGD; the other choices are the loop's own.
        device: of the network.
        workers: processes that make batches; 0: the loop makes them.
        coarse: with bfloat16 autocast and channels-last memory; otherwise float32.
    """

    def __init__(
        self,
        network: nn.Module,
        pictures: Pictures,
        settings: TrainingSettings,
        device: torch.device,
        *,
        workers: int,
        coarse: bool,
    ) -> None:
        self.layout = torch.channels_last if coarse else torch.contiguous_format
        self.network = network.to(device, memory_format=self.layout).train()  # type: ignore[call-overload]
        self.coarse = coarse
        self.device = device
        parameters = list(self.network.parameters())
        self.optimizer = torch.optim.SGD(
            [
                {
                    "params": [p for p in parameters if p.ndim > 1],
                    "weight_decay": settings.weight_decay,
                },
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
        )
        self.loader = DataLoader(
            pictures,
            batch_size=settings.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=device.type == "cuda",
        )

    def run(self, steps: int, timer: Timer, name: str) -> None:
        """Add the seconds of so many steps to the timer, after one that starts the workers."""
        with self._batches() as batches:
            self._step(next(batches))
            with timer.part(name):
                for _ in range(steps):
                    self._step(next(batches))

    @contextmanager
    def _batches(self) -> Iterator[Iterator[list[torch.Tensor]]]:
        """Yield batches without end; the workers end with the block."""

        def endless() -> Iterator[list[torch.Tensor]]:
            while True:
                yield from self.loader

        batches = endless()
        try:
            yield batches
        finally:
            batches.close()

    def _step(self, batch: list[torch.Tensor]) -> None:
        images, labels = (part.to(self.device, non_blocking=True) for part in batch)
        images = images.contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.coarse):
            logits = self.network(images)
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
