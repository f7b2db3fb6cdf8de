"""Batches against slow, obvious NumPy pictures of what they should hold."""

import itertools

import numpy as np
import pytest
import torch

from tests.training.small import CPU, PLAIN, make_card, make_split, make_stream
from tinygrow.settings.training import AugmentationSettings
from tinygrow.training.batches import DeviceImages, TrainingStream, augmented


def oracle_normalized(image: np.ndarray) -> np.ndarray:
    """Normalise uint8 (C, H, W) as torchvision does: (x / 255 - mean) / std, in float64."""
    card = make_card(len(image))
    mean, std = (np.array(v)[:, None, None] for v in (card.mean, card.std))
    return (image / 255 - mean) / std


def levels(images: torch.Tensor) -> np.ndarray:
    """Take normalised images back to grey levels (exact, as they are whole)."""
    card = make_card(images.shape[1])
    mean, std = (torch.tensor(v)[:, None, None] for v in (card.mean, card.std))
    return np.rint(((images * std + mean) * 255).numpy()).astype(int)


def one_image(
    shape: tuple[int, int, int], augmentation: AugmentationSettings, passes: int
) -> tuple[np.ndarray, torch.Tensor]:
    """An image and many augmented copies of it."""
    stream = make_stream(1, augmentation, shape=shape, seed=3)
    images, _ = stream.next(passes)
    return stream.images.images_NHWC[0].permute(2, 0, 1).numpy(), images


def windows(image: np.ndarray, pad: int, flip: bool) -> dict[bytes, tuple[int, int, bool]]:
    """Every window of the reflect-padded image, mirrored or not, by its bytes."""
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    height, width = image.shape[1:]
    found = {}
    for mirrored in (False, True) if flip else (False,):
        for i in range(2 * pad + 1):
            for j in range(2 * pad + 1):
                cut = padded[:, i : i + height, j : j + width]
                cut = cut[:, :, ::-1] if mirrored else cut
                found[cut.astype(int).tobytes()] = (i, j, mirrored)
    return found


class TestDeviceImages:
    @pytest.mark.parametrize("shape", [(3, 5, 7), (1, 4, 4)])
    def test_normalisation_is_that_of_torchvision(self, shape: tuple[int, int, int]) -> None:
        split = make_split(6, shape)
        images = DeviceImages(split, make_card(shape[0]), CPU)
        (batch, labels), *rest = images.batches(10)
        assert not rest
        expected = np.stack([oracle_normalized(image) for image in split.images.numpy()])
        np.testing.assert_allclose(batch.numpy(), expected, rtol=1e-5, atol=1e-6)
        assert batch.dtype == torch.float32
        assert labels.tolist() == list(range(6))

    def test_batches_hold_every_image_once_in_order(self) -> None:
        images = DeviceImages(make_split(10), make_card(), CPU)
        parts = list(images.batches(4))
        assert [len(x) for x, _ in parts] == [4, 4, 2]
        assert torch.cat([y for _, y in parts]).tolist() == list(range(10))
        assert torch.equal(torch.cat([x for x, _ in parts]), next(images.batches(10))[0])

    def test_batches_are_channels_last(self) -> None:
        images = DeviceImages(make_split(4), make_card(), CPU)
        (batch, _) = next(images.batches(4))
        assert batch.is_contiguous(memory_format=torch.channels_last)

    def test_the_split_itself_is_not_changed(self) -> None:
        split = make_split(4)
        before = split.images.clone()
        stream = TrainingStream(
            DeviceImages(split, make_card(), CPU),
            AugmentationSettings(crop_padding=2, flip="random", cutout=3),
            seed=0,
        )
        stream.next(9)
        assert torch.equal(split.images, before)


class TestOrder:
    @pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 10, 23])
    def test_every_image_once_an_epoch_across_borders(self, batch_size: int) -> None:
        stream = make_stream(10)
        labels: list[int] = []
        while len(labels) < 70 or len(labels) % 10:
            labels += stream.next(batch_size)[1].tolist()
        epochs = [labels[i : i + 10] for i in range(0, len(labels), 10)]
        assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs), "epochs repeat their order"

    def test_images_come_with_their_labels(self) -> None:
        stream = make_stream(10)
        images, labels = stream.next(15)
        source = stream.images.images_NHWC.permute(0, 3, 1, 2).numpy()
        np.testing.assert_array_equal(levels(images), source[labels.numpy()])

    def test_without_augmentation_images_are_as_in_evaluation(self) -> None:
        stream = make_stream(10)
        images, labels = stream.next(10)
        plain, _ = next(stream.images.batches(10))
        assert torch.equal(images, plain[labels])

    def test_a_seed_decides_order_and_augmentation(self) -> None:
        augmentation = AugmentationSettings(crop_padding=2, flip="random", cutout=3)
        first, second, other = (make_stream(20, augmentation, seed=s) for s in (5, 5, 6))
        for _ in range(3):
            (x, y), (x2, y2), (x3, y3) = first.next(16), second.next(16), other.next(16)
            assert torch.equal(x, x2) and torch.equal(y, y2)
            assert not torch.equal(y, y3) and not torch.equal(x, x3)

    def test_the_global_generator_is_neither_read_nor_moved(self) -> None:
        augmentation = AugmentationSettings(crop_padding=2, flip="random", cutout=3)
        torch.manual_seed(1)
        before = torch.get_rng_state()
        labels = make_stream(20, augmentation).next(16)[1]
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(make_stream(20, augmentation).next(16)[1], labels)


class TestSample:
    def test_without_replacement(self) -> None:
        labels = [y for _, part in make_stream(30).sample(20, 6) for y in part.tolist()]
        assert len(labels) == len(set(labels)) == 20

    def test_all_if_fewer(self) -> None:
        parts = make_stream(10).sample(100, 4)
        assert sorted(y for _, part in parts for y in part.tolist()) == list(range(10))
        assert [len(y) for _, y in parts] == [4, 3, 3]

    def test_batches_are_of_nearly_equal_size(self) -> None:
        assert [len(y) for _, y in make_stream(10).sample(9, 4)] == [3, 3, 3]

    @pytest.mark.parametrize(("available", "count"), [(10, 1), (1, 1), (1, 50)])
    def test_but_not_if_it_is_all_there_is(self, available: int, count: int) -> None:
        assert [len(y) for _, y in make_stream(available).sample(count, 4)] == [1]

    def test_samples_differ_and_are_augmented(self) -> None:
        stream = make_stream(40, AugmentationSettings(crop_padding=2, flip="random"))
        (x, y), (_, y2) = stream.sample(20, 20)[0], stream.sample(20, 20)[0]
        plain, _ = next(stream.images.batches(40))
        assert set(y.tolist()) != set(y2.tolist())
        assert not torch.equal(x, plain[y])

    def test_a_batch_is_the_same_whenever_it_is_asked_for(self) -> None:
        sample = make_stream(40, AugmentationSettings(crop_padding=2, cutout=3)).sample(30, 8)
        first = [(x.clone(), y.clone()) for x, y in sample]
        assert len(sample) == len(first) == 4
        for (x, y), (again, labels) in zip(first, reversed(sample[::-1]), strict=True):
            assert torch.equal(x, again) and torch.equal(y, labels)

    def test_does_not_disturb_the_order_of_an_epoch(self) -> None:
        stream = make_stream(10)
        labels = stream.next(4)[1].tolist()
        stream.sample(10, 5)
        labels += stream.next(6)[1].tolist()
        assert sorted(labels) == list(range(10))


class TestAugmentation:
    @pytest.mark.parametrize("pad", [1, 2, 3])
    @pytest.mark.parametrize("flip", [False, True])
    def test_a_crop_is_a_window_of_the_reflected_image(self, pad: int, flip: bool) -> None:
        augmentation = AugmentationSettings(crop_padding=pad, flip="random" if flip else "off")
        image, copies = one_image((3, 5, 7), augmentation, passes=400)
        known = windows(image, pad, flip)
        seen = [known[picture.tobytes()] for picture in levels(copies)]
        for axis in (0, 1):
            assert {place[axis] for place in seen} == set(range(2 * pad + 1))
        assert {place[2] for place in seen} == ({False, True} if flip else {False})
        mirrored = sum(place[2] for place in seen)
        assert not flip or 140 < mirrored < 260  # 6 standard deviations of a fair coin

    def test_borders_wider_than_the_image(self) -> None:
        image, copies = one_image((1, 3, 2), AugmentationSettings(crop_padding=9, flip="off"), 300)
        known = windows(image, 9, flip=False)
        assert all(picture.tobytes() in known for picture in levels(copies))

    def test_images_one_pixel_wide(self) -> None:
        image, copies = one_image(
            (1, 4, 1), AugmentationSettings(crop_padding=2, flip="random"), 50
        )
        known = windows(image, 2, flip=True)
        assert all(picture.tobytes() in known for picture in levels(copies))

    def test_a_flip_alone_mirrors_left_and_right(self) -> None:
        image, copies = one_image(
            (3, 5, 7), AugmentationSettings(crop_padding=0, flip="random"), 40
        )
        pictures = levels(copies)
        as_is = (pictures == image).all(axis=(1, 2, 3))
        mirrored = (pictures == image[:, :, ::-1]).all(axis=(1, 2, 3))
        assert (as_is ^ mirrored).all() and as_is.any() and mirrored.any()

    def test_images_of_a_batch_are_augmented_independently(self) -> None:
        stream = make_stream(1, AugmentationSettings(crop_padding=2, flip="random"), seed=1)
        pictures = levels(stream.next(60)[0])
        assert len({picture.tobytes() for picture in pictures}) > 20  # of 50 windows

    @pytest.mark.parametrize("side", [1, 2, 3, 20])
    def test_cutout_sets_one_clipped_square_to_the_mean(self, side: int) -> None:
        augmentation = AugmentationSettings(crop_padding=0, flip="off", cutout=side)
        image, copies = one_image((3, 5, 7), augmentation, passes=600)
        plain = oracle_normalized(image)
        corners = set()
        for copy in copies.numpy():
            mean = (copy == 0.0).all(axis=0)
            rows, columns = np.flatnonzero(mean.any(axis=1)), np.flatnonzero(mean.any(axis=0))
            assert mean[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert mean.sum() == len(rows) * len(columns)
            for lines, size in ((rows, 5), (columns, 7)):
                inside = lines[0] > 0 and lines[-1] < size - 1
                assert len(lines) == side if inside else len(lines) <= side
            np.testing.assert_allclose(
                copy[:, ~mean], plain[:, ~mean].astype(np.float32), rtol=1e-5, atol=1e-6
            )
            corners.add((rows[0], columns[0], rows[-1], columns[-1]))
        assert len(corners) == (35 if side < 4 else 1)

    def test_nothing_is_random_where_all_is_off(self) -> None:
        stream = make_stream(6, PLAIN)
        state = stream.generator.get_state()
        order = torch.arange(6)
        images, _ = augmented(stream.images, order, PLAIN, stream.generator)
        assert torch.equal(stream.generator.get_state(), state)
        assert torch.equal(images, next(stream.images.batches(6))[0])


class TestAlternation:
    SETTINGS = AugmentationSettings(crop_padding=0, flip="alternating")

    def mirrored(self, stream: TrainingStream, images: torch.Tensor, labels: torch.Tensor) -> list:
        """Say of each picture whether it is the mirrored one; random pixels are never both."""
        source = stream.images.images_NHWC.permute(0, 3, 1, 2).numpy()[labels.numpy()]
        pictures = levels(images)
        turned = (pictures == source[..., ::-1]).all(axis=(1, 2, 3))
        assert (turned ^ (pictures == source).all(axis=(1, 2, 3))).all()
        return turned.tolist()

    @pytest.mark.parametrize("batch_size", [1, 3, 10, 23])
    def test_every_image_turns_in_every_epoch(self, batch_size: int) -> None:
        stream = make_stream(10, self.SETTINGS)
        seen: dict[int, list[bool]] = {label: [] for label in range(10)}
        while min(map(len, seen.values())) < 5:
            images, labels = stream.next(batch_size)
            for label, turned in zip(
                labels.tolist(), self.mirrored(stream, images, labels), strict=True
            ):
                seen[label].append(turned)
        for sides in seen.values():
            assert all(a != b for a, b in itertools.pairwise(sides))
        assert len({sides[0] for sides in seen.values()}) == 2, "all begin on the same side"

    def test_the_seed_draws_the_first_sides(self) -> None:
        def first(seed: int) -> dict[int, bool]:
            stream = make_stream(40, self.SETTINGS, seed=seed)
            images, labels = stream.next(40)
            return dict(zip(labels.tolist(), self.mirrored(stream, images, labels), strict=True))

        assert first(1) == first(1) != first(2)
        assert 5 < sum(first(1).values()) < 35  # 5 standard deviations of a fair coin

    def test_goes_on_from_a_state_on_the_same_side(self) -> None:
        stream, other = (make_stream(10, self.SETTINGS, seed=s) for s in (1, 2))
        stream.next(17)
        other.restore(stream.state())
        for _ in range(3):
            (x, y), (x2, y2) = stream.next(7), other.next(7)
            assert torch.equal(x, x2) and torch.equal(y, y2)

    def test_processes_see_parts_of_the_same_batch(self) -> None:
        whole, first, second = (make_stream(10, self.SETTINGS) for _ in range(3))
        for _ in range(5):
            images, _ = whole.next(7)
            parts = [first.next(7, slice(0, 3))[0], second.next(7, slice(3, 7))[0]]
            assert torch.equal(torch.cat(parts), images)

    def test_a_sample_is_mirrored_at_random_and_turns_nothing(self) -> None:
        one, two = make_stream(10, self.SETTINGS), make_stream(10, self.SETTINGS)
        one.next(10), two.next(10)
        sides = set()
        for _ in range(20):
            x, y = one.sample(10, 10)[0]
            sides.add(
                tuple(
                    turned
                    for _, turned in sorted(zip(y.tolist(), self.mirrored(one, x, y), strict=True))
                )
            )
        assert len(sides) > 10
        sides_of = []
        for stream in (one, two):
            x, y = stream.next(10)
            sides_of.append(dict(zip(y.tolist(), self.mirrored(stream, x, y), strict=True)))
        assert sides_of[0] == sides_of[1]
