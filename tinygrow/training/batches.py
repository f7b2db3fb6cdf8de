"""Batches cut on the device: the whole split lives there as one uint8 tensor.

Shapes: N images, B batch, C channels, H W space.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, overload

import torch

from tinygrow.data.prepared import DataCard, Split
from tinygrow.settings.training import AugmentationSettings
from tinygrow.state.values import copied

Batch = tuple[torch.Tensor, torch.Tensor]
"""Normalised float32 images (B, C, H, W), channels last in memory, and int64 labels (B,)."""
WHOLE = slice(None)


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

    def box(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the smallest and the largest normalised image, both (C, H, W)."""
        shape = (2, *self.images_NHWC.shape[1:])
        ends = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        ends[1] = 255
        lower, upper = self.normalize(ends)
        return lower, upper

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

    Where images are mirrored in alternation, each one's side in the first epoch is drawn once.

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
        self._epochs = 0  # shuffled so far; the order ends with the last of them
        self._mirrored_first: torch.Tensor | None = None
        if augmentation.flip == "alternating":
            self._mirrored_first = torch.randint(
                2, (len(images),), generator=self.generator, device=images.device
            ).bool()

    def __len__(self) -> int:
        return len(self.images)

    def next(self, batch_size: int, part: slice = WHOLE) -> Batch:
        """Return the next `batch_size` images, across the border of two epochs if need be.

        Args:
            batch_size: images that are taken from the stream, and random numbers for them.
            part: of these, the ones that are made.
        """
        while len(self._order) < batch_size:
            fresh = torch.randperm(
                len(self.images), generator=self.generator, device=self.images.device
            )
            self._order = torch.cat([self._order, fresh])
            self._epochs += 1
        mirrored = self._mirrored(batch_size)
        chosen, self._order = self._order[:batch_size], self._order[batch_size:]
        return augmented(
            self.images, chosen, self.augmentation, self.generator, part, mirrored=mirrored
        )

    def _mirrored(self, count: int) -> torch.Tensor | None:
        """Say which of the next `count` images alternation shows mirrored; None: chance does."""
        if self._mirrored_first is None:
            return None
        waiting = len(self._order)
        after = torch.arange(waiting - 1, waiting - 1 - count, -1, device=self.images.device)
        epoch = self._epochs - 1 - after.div(len(self.images), rounding_mode="floor")
        return self._mirrored_first[self._order[:count]] ^ epoch.remainder(2).bool()

    def state(self) -> dict[str, Any]:
        """Return the place in the stream: what `next` and `sample` give hangs on nothing else."""
        return {
            "generator": self.generator.get_state(),
            "order": copied(self._order),
            "epochs": self._epochs,
            "mirrored_first": copied(self._mirrored_first),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a place in a stream over the same images."""
        self.generator.set_state(state["generator"])
        self._order = copied(state["order"]).to(self.images.device)
        self._epochs = state["epochs"]
        if state["mirrored_first"] is not None:
            self._mirrored_first = copied(state["mirrored_first"]).to(self.images.device)

    def sample(self, count: int, batch_size: int) -> "Sample":
        """Return `count` random images (all, if fewer), augmented, in batches to be used again.

        Drawn without replacement and apart from the shuffled order that `next` follows. Batches
        are of nearly equal size, at most `batch_size`: BatchNorm normalises a small rest badly.
        """
        order = torch.randperm(
            len(self.images), generator=self.generator, device=self.images.device
        )[:count]
        parts = order.tensor_split(math.ceil(len(order) / batch_size))
        seeds = torch.randint(
            2**62, (len(parts),), generator=self.generator, device=self.images.device
        )
        return Sample(self.images, self.augmentation, parts, seeds.tolist())


class Sample(Sequence[Batch]):
    """A frozen sample of training images: each batch is made when asked for, always the same.

    So statistics over a whole training set hold one batch at a time.

    Args:
        images: the training split on its device.
        augmentation: what is done to each image.
        parts: indices of each batch.
        seeds: of each batch's augmentation.
    """

    def __init__(
        self,
        images: DeviceImages,
        augmentation: AugmentationSettings,
        parts: Sequence[torch.Tensor],
        seeds: Sequence[int],
    ) -> None:
        self._images = images
        self._augmentation = augmentation
        self._parts = list(zip(parts, seeds, strict=True))

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        chosen, seed = self._parts[index]
        generator = torch.Generator(self._images.device).manual_seed(seed)
        return augmented(self._images, chosen, self._augmentation, generator)


def augmented(
    images: DeviceImages,
    chosen: torch.Tensor,
    settings: AugmentationSettings,
    generator: torch.Generator,
    part: slice = WHOLE,
    *,
    mirrored: torch.Tensor | None = None,
) -> Batch:
    """Cut the chosen images out of the split and augment each by itself.

    Args:
        images: the split on its device.
        chosen: (B,) indices.
        settings: what is done.
        generator: on the same device.
        part: of the chosen, those that are made; each is the same whichever they are.
        mirrored: (B,) says which of the chosen to mirror; None: chance, unless flips are off.
    """
    drawn, chosen = len(chosen), chosen[part]

    def integers(high: int) -> torch.Tensor:
        numbers = torch.randint(high, (drawn, 1), generator=generator, device=images.device)
        return numbers[part]

    source = images.images_NHWC
    count, (height, width) = len(chosen), source.shape[1:3]
    pad = settings.crop_padding
    rows = torch.arange(height, device=source.device).expand(count, height)
    columns = torch.arange(width, device=source.device).expand(count, width)
    if settings.flip != "off":
        turn = integers(2).bool() if mirrored is None else mirrored[part, None]
        columns = torch.where(turn, width - 1 - columns, columns)
    if pad:
        rows = _reflect(rows + integers(2 * pad + 1) - pad, height)
        columns = _reflect(columns + integers(2 * pad + 1) - pad, width)
    batch = images.normalize(source[chosen[:, None, None], rows[:, :, None], columns[:, None, :]])
    if settings.cutout:
        kept = []
        for size in (height, width):
            start = integers(size) - settings.cutout // 2
            position = torch.arange(size, device=images.device)[None]
            kept.append((position < start) | (position >= start + settings.cutout))
        batch = batch * (kept[0][:, None, :, None] | kept[1][:, None, None, :]).float()
    return batch, images.labels[chosen]


def _reflect(index: torch.Tensor, size: int) -> torch.Tensor:
    """Mirror indices outside 0..size-1 at the border pixels (a border of any width)."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)
