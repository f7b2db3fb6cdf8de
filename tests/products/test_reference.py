import numpy as np
import torch

from tinygrow.checkpoint import Checkpoint
from tinygrow.data.prepared import DataCard
from tinygrow.observer import Observer
from tinygrow.products.reference import accuracy, torch_logits


class Counter(Observer):
    def __init__(self) -> None:
        self.counted, self.ended = 0, False

    def advance(self, count: int = 1, **facts: float) -> None:
        self.counted += count

    def end(self) -> None:
        self.ended = True


def test_logits_of_normalised_images_whatever_the_batch(resnet: Checkpoint, card: DataCard) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, *card.shape), np.uint8)
    observer = Counter()
    found = torch_logits(resnet.network, card, images, observer, batch_size=3)
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (card.mean, card.std))
    with torch.no_grad():
        right = resnet.network(torch.from_numpy((images.astype(np.float32) / 255 - mean) / std))
    np.testing.assert_allclose(found, right.numpy(), atol=1e-5)
    assert (observer.counted, observer.ended) == (7, True)


def test_accuracy_in_percent() -> None:
    logits = np.array([[1, 0], [0, 1], [3, 2], [5, 4]], np.float32)
    assert accuracy(logits, np.array([0, 1, 0, 1])) == 75.0
