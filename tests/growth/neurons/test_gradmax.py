"""GradMax from statistics to the first step, and the trap of ReLU's gradient at 0."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.growth import oracle
from tests.growth.scenes import (
    EXACT,
    PairNet,
    conv_pair,
    desired_update_alone,
    linear_pair,
    perceptron,
    quick_settings,
    resnet,
    site_of,
    stream,
)
from tinygrow.growth.bottleneck import Neurons
from tinygrow.growth.extend import extend
from tinygrow.growth.neurons.gradmax import propose
from tinygrow.growth.neurons.proposal import Request
from tinygrow.growth.sites import Site, sites_of
from tinygrow.growth.surgery import as_units, widen
from tinygrow.settings.growth import GrowthSettings, StatisticsSettings
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.batches import Batch
from tinygrow.training.loop import Trainer

SETTINGS = GrowthSettings(method="gradmax", statistics=EXACT)
# With an amplitude that another method would have searched.
QUICK = quick_settings(
    method="gradmax", training=TrainingSettings(batch_size=16, learning_rate=0.01)
)
COUNT = 3


def request(network: nn.Module, site: Site, batch: Batch) -> Request:
    """Return a request whose samples are always the leading images of one batch."""
    return Request(
        network=network,
        site=site,
        count=COUNT,
        sample=lambda images: [(batch[0][:images], batch[1][:images])],
        available=len(batch[1]),
        settings=SETTINGS,
        generator=torch.Generator(),
    )


def scene(kind: str) -> tuple[PairNet, Batch]:
    """Return a pair of layers around a ReLU, with a batch."""
    if kind == "linear":
        return linear_pair(activation=torch.relu)
    return conv_pair(images=30, activation=torch.relu, normed=kind == "normed")


def gradient_power(network: PairNet, batch: Batch, omega: torch.Tensor) -> float:
    """Return the squared gradient at the fan-in of silent units with this fan-out, by autograd."""
    site, wide = site_of(network), copy.deepcopy(network).train()
    first, second = site.layers(wide)
    patch = first.weight[0].numel() + 1
    none = torch.empty(0)
    neurons = Neurons(omega.new_zeros(len(omega), patch), omega, none, none)
    widen(wide, site, as_units(neurons, first, second))
    F.cross_entropy(wide(batch[0]), batch[1]).backward()
    return sum(float(p.grad[-len(omega) :].square().sum()) for p in (first.weight, first.bias))


def random_frame(size: int, generator: torch.Generator) -> torch.Tensor:
    """Return COUNT random orthonormal rows."""
    gaussian = torch.randn(size, COUNT, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(gaussian).Q.T


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_no_orthonormal_fan_out_gives_the_fan_in_a_larger_gradient(kind: str) -> None:
    network, batch = scene(kind)

    neurons = propose(request(network, site_of(network), batch)).neurons

    # N by loops over images, positions and taps, and without projection.
    target = desired_update_alone(network, batch)
    _, N = oracle.neuron_moments(batch[0], target, network.first, network.second)
    values = torch.linalg.svdvals(torch.from_numpy(N))
    assert not neurons.alpha.any()
    assert neurons.alpha.shape == (COUNT, len(N))
    eye = torch.eye(COUNT, dtype=torch.float64)
    torch.testing.assert_close(neurons.omega @ neurons.omega.T, eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(neurons.singular_values, values[:COUNT], rtol=1e-10, atol=0)
    # What PyTorch's gradient is after widening, to the offset's 1e-6.
    best = gradient_power(network, batch, neurons.omega)
    assert best == pytest.approx(float(values[:COUNT].square().sum()), rel=1e-4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        other = random_frame(neurons.omega.shape[1], generator)
        assert gradient_power(network, batch, other) < best


def test_batch_norm_behind_the_layer_hardly_moves_the_best_fan_out() -> None:
    # It takes the mean off what new units read, which the closed form ignores.
    network, batch = scene("normed")
    network.train()

    omega = propose(request(network, site_of(network), batch)).neurons.omega

    # The power is a quadratic form of each row: polarisation gives its matrix, hence its optimum.
    size = omega.shape[1]
    eye = torch.eye(size, dtype=torch.float64)
    alone = [gradient_power(network, batch, eye[i : i + 1]) for i in range(size)]
    form = torch.diag(torch.tensor(alone, dtype=torch.float64))
    for i in range(size):
        for j in range(i):
            pair = gradient_power(network, batch, (eye[i] + eye[j])[None])
            form[i, j] = form[j, i] = (pair - alone[i] - alone[j]) / 2
    best = float(torch.linalg.eigvalsh(form)[-COUNT:].sum())
    assert gradient_power(network, batch, omega) > 0.9 * best


@pytest.mark.parametrize("kind", ["linear", "conv", "normed"])
def test_without_the_offset_silent_units_never_learn(kind: str) -> None:
    # The trap: PyTorch's ReLU has gradient 0 at 0, where silent units stand for all images.
    network, batch = scene(kind)
    network.train()
    site = site_of(network)
    proposal = propose(request(network, site, batch))
    units = as_units(proposal.neurons, *site.layers(network)).scaled(1.0, 1e-3)
    outputs = network(batch[0]).detach()

    for offset in (0.0, units.offset):
        wide = copy.deepcopy(network)
        widen(wide, site, replace(units, offset=offset))
        torch.testing.assert_close(wide(batch[0]).detach(), outputs, rtol=0, atol=1e-8)
        optimizer = torch.optim.SGD(wide.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(wide(batch[0]), batch[1]).backward()
            optimizer.step()
        new = wide.first.weight[-COUNT:].flatten(1)
        assert new.any(1).tolist() == [offset > 0] * COUNT


@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["resnet", "mlp"])
def test_every_neuron_of_an_extension_learns_and_changes_nothing_before(
    kind: str, ema: float
) -> None:
    settings = replace(QUICK, training=replace(QUICK.training, ema=ema))
    network, architecture = resnet(middle=(2, 2)) if kind == "resnet" else perceptron((4, 4))
    trainer = Trainer(network, stream(), settings.training, total_epochs=10.0)
    trainer.train(1.0)
    site, x = sites_of(architecture)[0], stream().sample(64, 64)[0][0]
    networks = [network] if trainer.average is None else [network, trainer.average]
    with torch.no_grad():
        before = [copy.deepcopy(n).train()(x) for n in networks]

    done = extend(network, site, COUNT, trainer, settings, generator=torch.Generator())

    assert done.added == COUNT
    assert done.amplitude is not None and done.amplitude.factor == 1e-3
    assert not done.amplitude.rejected
    assert done.amplitude.loss_after == pytest.approx(done.amplitude.loss_before, rel=1e-5)
    assert done.proposal.bottleneck is done.bottleneck_after is None
    for grown, outputs in zip(networks, before, strict=True):
        first, second = site.layers(grown)
        assert not first.weight[-COUNT:].any()
        omega = second.weight[:, -COUNT:].transpose(0, 1).flatten(1)
        norms = omega.norm(dim=1)  # gamma, all of it
        torch.testing.assert_close(norms, torch.full_like(norms, 1e-3), rtol=1e-5, atol=0)
        with torch.no_grad():
            after = copy.deepcopy(grown).train()(x)
            evaluated = copy.deepcopy(grown).eval()(x)
        torch.testing.assert_close(after, outputs, rtol=1e-5, atol=1e-5)
        assert torch.isfinite(evaluated).all()  # with running variances of zero
    trainer.train(16 / 96)
    for grown in networks:
        assert site.layers(grown)[0].weight[-COUNT:].flatten(1).any(1).all()


def test_n_alone_is_measured_on_images_of_the_size_of_the_appendix() -> None:
    network, (x, y) = conv_pair(images=400, channels=(6, 3, 4), size=(4, 4))
    asked: list[int] = []

    def sample(images: int) -> list[Batch]:
        asked.append(images)
        return [(x[:images], y[:images])]

    statistics = StatisticsSettings(min_images=2, batch_size=2, conv_factor=0.05, dtype="float64")
    proposal = propose(
        replace(
            request(network, site_of(network), (x, y)),
            sample=sample,
            settings=replace(SETTINGS, statistics=statistics),
        )
    )

    # 0.05 * 11.1267^2 * 6 * 4 = 148.6, made even.
    assert [n for n in asked if n > 2] == [148]
    assert proposal.images == 148
    assert proposal.update_batches == ()


def test_label_smoothing_enters_the_gradient() -> None:
    network, batch = scene("linear")
    settings = replace(SETTINGS, training=replace(SETTINGS.training, label_smoothing=0.4))

    neurons = propose(replace(request(network, site_of(network), batch), settings=settings)).neurons

    target = desired_update_alone(network, batch, 0.4)
    _, N = oracle.neuron_moments(batch[0], target, network.first, network.second)
    values = torch.linalg.svdvals(torch.from_numpy(N))[:COUNT]
    torch.testing.assert_close(neurons.singular_values, values, rtol=1e-10, atol=0)


def test_directions_without_a_gradient_are_not_added() -> None:
    # Two outputs that get the same gradient: N has a rank of 5 instead of 6.
    network, (x, y) = linear_pair(images=200, widths=(8, 4, 6), activation=torch.relu)
    twins, site = copy.deepcopy(network), site_of(network)
    with torch.no_grad():
        twins.head.weight[:, 1] = twins.head.weight[:, 0]
        twins.second.weight[1] = twins.second.weight[0]
        twins.second.bias[1] = twins.second.bias[0]
        network.head.weight.zero_()

    wanted = replace(request(twins, site, (x, y)), count=6)
    rough = replace(SETTINGS, statistics=replace(EXACT, dtype="float32"))

    assert len(propose(wanted).neurons.omega) == 5
    assert len(propose(replace(wanted, settings=rough)).neurons.omega) == 5
    assert len(propose(request(network, site, (x, y))).neurons.omega) == 0
