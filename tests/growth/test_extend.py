"""One extension at a time: `tinygrow.growth.grow.extend` on a network that has learnt something."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from tests.growth.scenes import NEVER, patterns, perceptron, quick_settings, resnet, stream
from tinygrow.architecture import Architecture
from tinygrow.growth.bottleneck import best_update, bottleneck
from tinygrow.growth.extend import extend
from tinygrow.growth.sites import sites_of
from tinygrow.growth.statistics import update_moments
from tinygrow.networks.cost import count_parameters
from tinygrow.settings.growth import GrowthSettings, SolverSettings
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.batches import TrainingStream
from tinygrow.training.loop import Trainer


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def trained(settings: GrowthSettings) -> tuple[Trainer, Architecture]:
    """Return a trainer whose small residual network has been trained for a while."""
    network, architecture = resnet(middle=(2, 2))
    trainer = Trainer(network, stream(), settings.training, total_epochs=10.0)
    trainer.train(2.0)
    return trainer, architecture


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
def test_an_extension_lowers_the_training_loss(kind: str) -> None:
    settings = quick_settings()
    settings = replace(settings, amplitude=replace(settings.amplitude, images=96, search="grid"))
    network, architecture = resnet(middle=(1, 1)) if kind == "resnet" else perceptron((2, 2))
    trainer = Trainer(network, stream(), settings.training, total_epochs=10.0)
    trainer.train(1.0)
    narrow = copy.deepcopy(network)

    done = extend(network, sites_of(architecture)[0], 2, trainer, settings, generator=generator())

    assert done.amplitude is not None
    assert done.amplitude.loss_after < done.amplitude.loss_before * 0.999
    # Measured again, on other augmentations of the training images.
    x, y = TrainingStream(patterns(96, seed=1), trainer.stream.augmentation, 77).sample(96, 96)[0]
    with torch.no_grad():
        losses = [float(F.cross_entropy(copy.deepcopy(n).train()(x), y)) for n in (narrow, network)]
    assert losses[1] < losses[0]


def test_the_bottleneck_is_measured_again_on_the_same_images() -> None:
    settings = quick_settings()
    trainer, architecture = trained(settings)
    settings = replace(
        settings, amplitude=replace(settings.amplitude, min_gain=NEVER, when_rejected="preserve")
    )

    done = extend(
        trainer.network, sites_of(architecture)[1], 2, trainer, settings, generator=generator()
    )

    images = list(done.proposal.update_batches)
    site = sites_of(architecture)[1]
    moments = update_moments(trainer.network, site, images, settings.statistics)
    delta = best_update(moments.S1, moments.M, settings.solver.relative_cut)
    assert done.bottleneck_after == bottleneck(moments.power, moments.M, delta)
    # Silent neurons keep V; their activations can only help to reproduce it.
    assert done.bottleneck_after <= done.proposal.bottleneck * (1 + 1e-6)
    assert done.bottleneck_after > 0.2 * done.proposal.bottleneck


def test_a_rejected_and_kept_extension_changes_the_width_and_not_the_function() -> None:
    settings = quick_settings()
    trainer, architecture = trained(settings)
    settings = replace(settings, amplitude=replace(settings.amplitude, min_gain=NEVER))
    x = torch.randn(8, 3, 8, 8)
    with torch.no_grad():
        before = [copy.deepcopy(trainer.network).train(mode)(x) for mode in (True, False)]

    done = extend(
        trainer.network, sites_of(architecture)[1], 3, trainer, settings, generator=generator()
    )

    assert done.added == 3
    assert trainer.network.stages[1].block0.conv1.out_channels == 5
    with torch.no_grad():
        after = [copy.deepcopy(trainer.network).train(mode)(x) for mode in (True, False)]
    # Zeros are added to float32 sums, in another order at most.
    torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after[1], before[1], rtol=1e-5, atol=1e-5)


def test_the_batch_grows_with_the_root_of_the_parameters_as_a_real_number() -> None:
    settings = quick_settings()
    trainer, architecture = trained(settings)
    begin = count_parameters(trainer.network)
    sizes = [trainer.batch_size]
    for _ in range(4):
        for site in sites_of(architecture):
            extend(trainer.network, site, 1, trainer, settings, generator=generator())
            sizes.append(trainer.batch_size)

    ratio = count_parameters(trainer.network) / begin
    assert trainer.batch_size == pytest.approx(16 * math.sqrt(ratio), rel=1e-12)
    assert all(b > a for a, b in pairwise(sizes))
    assert any(size != round(size) for size in sizes)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("state", ["recreate", "pad"])
def test_the_optimizer_follows_the_network(optimizer: str, state: str) -> None:
    training = TrainingSettings(
        optimizer=optimizer,
        momentum=0.9 * (optimizer == "sgd"),
        batch_size=16,
        learning_rate=0.01,
        weight_decay=1e-4,
    )
    settings = quick_settings(optimizer_state=state, training=training)
    trainer, architecture = trained(settings)

    extend(trainer.network, sites_of(architecture)[0], 2, trainer, settings, generator=generator())

    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in trainer.network.parameters()}
    values = [v for kept in trainer.optimizer.state.values() for v in kept.values()]
    assert any(bool(v.any()) for v in values) is (state == "pad")  # fresh state is zeros
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    trainer.train(0.5)
    for name, p in trainer.network.named_parameters():
        assert not torch.equal(p, before[name]), name


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_network_and_its_average_are_fit_for_evaluation_right_after_an_extension(
    ema: float,
) -> None:
    settings = quick_settings(training=TrainingSettings(batch_size=16, ema=ema))
    trainer, architecture = trained(settings)
    site = sites_of(architecture)[0]
    networks = [trainer.network] + ([trainer.average] if ema else [])
    before = [copy.deepcopy(network.get_submodule(site.norm)) for network in networks]

    extend(trainer.network, site, 2, trainer, settings, generator=generator())

    for network, old in zip(networks, before, strict=True):
        norm = network.get_submodule(site.norm)
        assert norm.num_features == 4
        assert (norm.running_mean[2:] != 0).all()
        assert (norm.running_var[2:] != 1).all()
        assert not torch.equal(norm.running_mean[:2], old.running_mean)  # all are measured again
        assert not torch.equal(norm.running_var[:2], old.running_var)


def test_a_network_without_anything_to_gain_is_left_alone() -> None:
    settings = quick_settings(solver=SolverSettings(projection=False))
    trainer, architecture = trained(settings)
    # Dead outputs: no gradient reaches the site, so there is no direction to add.
    with torch.no_grad():
        trainer.network.head.weight.zero_()
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}

    done = extend(
        trainer.network, sites_of(architecture)[0], 2, trainer, settings, generator=generator()
    )

    assert done.added == 0
    assert done.amplitude is None
    after = trainer.network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
