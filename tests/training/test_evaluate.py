import math

import pytest
import torch
from torch import nn

from tests.training.small import classified, same, small_network, weights
from tinygrow.training.evaluate import evaluate, images_a_pass


def trained_a_little() -> nn.Module:
    """A network whose running statistics are not those of any batch."""
    network = small_network(seed=2)
    for x, _ in classified(40, seed=9).batches(10):
        network(x)
    return network


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 7, 23, 1000, None])
def test_equals_a_slow_loop(batch_size: int | None) -> None:
    network, images = trained_a_little(), classified(23)
    loss, correct = 0.0, 0
    network.eval()
    for x, label in zip(*next(images.batches(23)), strict=True):
        logits = network(x[None])[0].double().tolist()
        loss += math.log(sum(math.exp(v) for v in logits)) - logits[int(label)]
        correct += max(range(3), key=logits.__getitem__) == int(label)
    measured = evaluate(network, images, batch_size)
    assert measured[0] == pytest.approx(loss / 23, rel=1e-5)
    assert measured[1] == pytest.approx(100 * correct / 23)
    assert 0 < correct < 23, "the example decides nothing"


@pytest.mark.parametrize("training", [True, False])
def test_leaves_no_trace(training: bool) -> None:
    network = trained_a_little().train(training)
    before = weights(network)
    evaluate(network, classified(10), 4)
    assert all(module.training == training for module in network.modules())
    assert same(weights(network), before), "running statistics moved"
    assert all(p.grad is None for p in network.parameters())


def test_the_mode_comes_back_after_a_failure() -> None:
    network = small_network().train()
    network.head = nn.Linear(99, 3)
    with pytest.raises(RuntimeError):
        evaluate(network, classified(10))
    assert network.training


def test_fewer_of_larger_images_go_through_a_gpu_at_once() -> None:
    images = classified(4)
    images.device = torch.device("cuda")  # of which only the name is looked at
    for side, count in ((32, 4000), (224, 81), (4096, 1)):
        images.images_NHWC = torch.empty(4, side, side, 1, dtype=torch.uint8, device="meta")
        assert images_a_pass(images) == count
