"""Batches cut on the device: the whole split lives there as one uint8 tensor.

Shapes: N images, B batch, C channels, H W space.
"""

from collections.abc import Iterator

import torch

from tinygrow.data.prepared import DataCard, Split
from tinygrow.settings.training import AugmentationSettings

Batch = tuple[torch.Tensor, torch.Tensor]
"""Normalised float32 images (B, C, H, W), channels last in memory, and int64 labels (B,)."""


class DeviceImages:
    """A split on the device, with the normalisation of its data set.

    Args:
        split: uint8 images (N, C, H, W) and labels (N,).
        card: its mean and std normalise.
        device: where batches are made.
    """

    def __init__(self, split: Split, card: DataCard, device: torch.device) -> None:
        # Channels last, so that one gather of rows and columns moves whole pixels.
        self.images_NHWC = split.images.permute(0, 2, 3, 1).contiguous().to(device)
        self.labels = split.labels.to(device)
        self.device = device
        mean = torch.tensor(card.mean, dtype=torch.float64)
        std = torch.tensor(card.std, dtype=torch.float64)
        self._scale = (1.0 / (255.0 * std)).float().to(device)
        self._shift = (-mean / std).float().to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield all images in order, as they are."""
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            yield self.normalize(self.images_NHWC[part]), self.labels[part]

    def normalize(self, images_BHWC: torch.Tensor) -> torch.Tensor:
        """Map uint8 (B, H, W, C) to normalised float32 (B, C, H, W)."""
        return (images_BHWC.float() * self._scale + self._shift).permute(0, 3, 1, 2)


class TrainingStream:
    """An endless, shuffled, augmented stream: every image once before any image twice.

    Args:
        images: the training split on its device.
        augmentation: what is done to each image.
        seed: of this stream's own generator.
    """

    def __init__(self, images: DeviceImages, augmentation: AugmentationSettings, seed: int) -> None:
        self.images = images
        self.augmentation = augmentation
        self.generator = torch.Generator(images.device).manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64, device=images.device)

    def __len__(self) -> int:
        return len(self.images)

    def next(self, batch_size: int) -> Batch:
        """Return the next `batch_size` images, across the border of two epochs if need be."""
        while len(self._order) < batch_size:
            fresh = torch.randperm(
                len(self.images), generator=self.generator, device=self.images.device
            )
            self._order = torch.cat([self._order, fresh])
        chosen, self._order = self._order[:batch_size], self._order[batch_size:]
        return self._augmented(chosen)

    def sample(self, count: int, batch_size: int) -> list[Batch]:
        """Return `count` random images (all, if fewer), augmented, in batches to be used again.

        Drawn without replacement and apart from the shuffled order that `next` follows. A rest
        of a single image is left out, since BatchNorm cannot normalise it.
        """
        order = torch.randperm(
            len(self.images), generator=self.generator, device=self.images.device
        )[:count]
        return [
            self._augmented(part)
            for part in order.split(batch_size)
            if len(part) > 1 or len(order) == 1
        ]

    def _augmented(self, chosen: torch.Tensor) -> Batch:
        source = self.images.images_NHWC
        count, (height, width) = len(chosen), source.shape[1:3]
        pad = self.augmentation.crop_padding
        rows = torch.arange(height, device=source.device).expand(count, height)
        columns = torch.arange(width, device=source.device).expand(count, width)
        if self.augmentation.flip:
            flipped = self._integers(count, 2).bool()
            columns = torch.where(flipped[:, None], width - 1 - columns, columns)
        if pad:
            rows = _reflect(rows + self._integers(count, 2 * pad + 1)[:, None] - pad, height)
            columns = _reflect(columns + self._integers(count, 2 * pad + 1)[:, None] - pad, width)
        pixels = source[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        images = self.images.normalize(pixels)
        if self.augmentation.cutout:
            images = images * self._cutout_mask(count, height, width)
        return images, self.images.labels[chosen]

    def _integers(self, count: int, high: int) -> torch.Tensor:
        return torch.randint(high, (count,), generator=self.generator, device=self.images.device)

    def _cutout_mask(self, count: int, height: int, width: int) -> torch.Tensor:
        side = self.augmentation.cutout
        kept = []
        for size in (height, width):
            start = self._integers(count, size)[:, None] - side // 2
            position = torch.arange(size, device=self.images.device)[None]
            kept.append((position < start) | (position >= start + side))
        return (kept[0][:, None, :, None] | kept[1][:, None, None, :]).float()


def _reflect(index: torch.Tensor, size: int) -> torch.Tensor:
    """Mirror indices outside 0..size-1 at the border pixels (a border of any width)."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)
