"""Growth on a GPU: the CPU's neurons, and a whole run with an interruption."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.growth.scenes import CARD, patterns, quick_settings, resnet
from tests.state.interrupt import run_in_pieces
from tinygrow.data.prepared import Split
from tinygrow.growth.bottleneck import best_update, optimal_neurons
from tinygrow.growth.extend import extend
from tinygrow.growth.grow import Grown, grow
from tinygrow.growth.neurons.method import METHODS
from tinygrow.growth.sites import sites_of
from tinygrow.growth.statistics import neuron_moments, update_moments
from tinygrow.settings.growth import StatisticsSettings
from tinygrow.settings.training import AugmentationSettings
from tinygrow.state.keeper import Keeper
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.loop import Trainer

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
COUNT = 3


def on_gpu(images: DeviceImages) -> DeviceImages:
    return DeviceImages(Split(images.images_NHWC.permute(0, 3, 1, 2), images.labels), CARD, CUDA)


def map_of_neurons(device: torch.device, index: int) -> torch.Tensor:
    """Return the rank-K product that defines the neurons whatever their signs and scales."""
    network, architecture = resnet(widths=(8, 16), middle=(4, 8))
    network = copy.deepcopy(network).to(device)
    site = sites_of(architecture)[index]
    batches = [(x.to(device), y.to(device)) for x, y in patterns(512, seed=1).batches(128)]
    settings = StatisticsSettings()
    update = update_moments(network, site, batches, settings)
    delta = best_update(update.S1, update.M, 1e-6)
    pair = neuron_moments(network, site, batches, delta, settings)
    neurons = optimal_neurons(pair.S, pair.N, COUNT, 1e-6)
    assert neurons.alpha.device.type == device.type  # the solver, too, runs there
    return (neurons.alpha.T @ neurons.omega).cpu()


@pytest.mark.parametrize("index", [0, 1])
def test_neurons_are_those_of_the_cpu(index: int) -> None:
    ours, theirs = (map_of_neurons(d, index) for d in (CUDA, torch.device("cpu")))
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_extends_there(method: str) -> None:
    settings = quick_settings(method=method)
    network, architecture = resnet(middle=(2, 2))
    augmentation = AugmentationSettings(crop_padding=1, flip="off")
    own = TrainingStream(on_gpu(patterns(96, seed=1)), augmentation, seed=0)
    trainer = Trainer(network.to(CUDA), own, settings.training, total_epochs=2.0)
    trainer.train(0.5)
    for site in sites_of(architecture):
        generator = torch.Generator().manual_seed(0)
        done = extend(trainer.network, site, COUNT, trainer, settings, generator=generator)
        assert done.added == COUNT
    trainer.train(0.5)
    assert all(t.is_cuda for t in trainer.network.state_dict().values())


def grown(keeper: Keeper) -> Grown:
    network, start = resnet()
    augmentation = AugmentationSettings(crop_padding=1, flip="off")
    return grow(
        network.to(CUDA, memory_format=torch.channels_last),
        start,
        replace(start, middle_widths=(4, 8)),
        TrainingStream(on_gpu(patterns(96, seed=1)), augmentation, seed=0),
        on_gpu(patterns(30, seed=2)),
        quick_settings(epochs_between=2.0),
        keeper=keeper,
    )


def test_a_whole_growth_runs_there_and_goes_on_after_interruptions(tmp_path: Path) -> None:
    whole = grown(Keeper())
    pieces, stops = run_in_pieces(tmp_path / "s", grown, points=5)
    assert stops > 3
    for result in (whole, pieces):
        assert next(result.network.parameters()).is_cuda
        assert result.architecture.middle_widths == (4, 8)
        assert result.rows[-1].validation_loss < result.rows[0].validation_loss
    assert [row.images_seen for row in pieces.rows] == [row.images_seen for row in whole.rows]
