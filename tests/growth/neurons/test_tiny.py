from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.growth import oracle
from tests.growth.scenes import (
    EXACT,
    conv_pair,
    desired_update_alone,
    identity,
    linear_pair,
    resnet,
    site_of,
    stream,
)
from tinygrow.growth.neurons.proposal import Request
from tinygrow.growth.neurons.tiny import propose
from tinygrow.growth.sites import Site, sites_of
from tinygrow.settings.growth import GrowthSettings, SolverSettings, StatisticsSettings
from tinygrow.training.batches import Batch

SETTINGS = GrowthSettings(
    statistics=replace(EXACT, same_sample=True), solver=SolverSettings(relative_cut=1e-12)
)


def request(
    network: nn.Module,
    site: Site,
    batch: Batch,
    settings: GrowthSettings = SETTINGS,
    count: int = 3,
) -> Request:
    """Return a request whose samples are always the leading images of one batch."""
    return Request(
        network=network,
        site=site,
        count=3,
        sample=lambda images: [(batch[0][:images], batch[1][:images])],
        available=len(batch[1]),
        settings=settings,
        generator=torch.Generator(),
    )


@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_proposal_is_the_closed_form_from_loops_and_svd(
    kind: str, projection: bool, smoothing: float
) -> None:
    network, batch = linear_pair() if kind == "linear" else conv_pair(images=10)
    settings = replace(
        SETTINGS,
        solver=SolverSettings(relative_cut=1e-12, projection=projection),
        training=replace(SETTINGS.training, label_smoothing=smoothing),
    )

    proposal = propose(request(network, site_of(network), batch, settings))

    h, target = network.hidden(batch[0]), desired_update_alone(network, batch, smoothing)
    S1, M, power = oracle.update_moments(h, target, network.second)
    delta = torch.linalg.solve(torch.from_numpy(S1), torch.from_numpy(M)).T.numpy()
    left = torch.from_numpy(oracle.projected(h, target, network.second, delta))
    S, N = oracle.neuron_moments(
        batch[0], left if projection else target, network.first, network.second
    )
    expected, values = oracle.rank_k_product(S, N, 3)
    neurons = proposal.neurons
    product = neurons.alpha.T @ neurons.omega
    # Condition numbers of S and S1 are below 1e3.
    torch.testing.assert_close(product, torch.from_numpy(expected), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        neurons.spectrum, torch.from_numpy(values[: len(neurons.spectrum)]), rtol=1e-8, atol=1e-10
    )
    # Psi^2 belongs to the site, whatever the neurons are fitted to.
    assert proposal.bottleneck == pytest.approx(oracle.inner(left, left), rel=1e-9)
    assert proposal.bottleneck < power
    assert proposal.images == 2 * len(batch[1])


def test_without_hidden_nonlinearity_only_the_unprojected_update_leaves_neurons() -> None:
    # Check G through the whole method; check H, GradMax's, stands with its closed form.
    network, batch = linear_pair(widths=(5, 6, 4), activation=identity)
    raw = replace(SETTINGS, solver=SolverSettings(projection=False))

    projected = propose(request(network, site_of(network), batch)).neurons
    unprojected = propose(request(network, site_of(network), batch, raw)).neurons

    assert len(projected.spectrum) == len(projected.alpha) == 0  # rounding is no direction
    assert unprojected.spectrum[0] > 1e-3


@pytest.mark.parametrize("same", [True, False])
def test_moments_are_estimated_on_their_own_samples_of_the_sizes_of_the_appendix(
    same: bool,
) -> None:
    network, (x, y) = conv_pair(images=400, channels=(6, 3, 4), size=(4, 4))
    asked: list[int] = []

    def sample(images: int) -> list[Batch]:
        asked.append(images)
        chosen = torch.randperm(400)[:images]
        return [(x[chosen], y[chosen])]

    settings = StatisticsSettings(
        min_images=2, batch_size=2, conv_factor=0.05, same_sample=same, dtype="float64"
    )
    proposal = propose(
        replace(
            request(network, site_of(network), (x, y), replace(SETTINGS, statistics=settings)),
            sample=sample,
        )
    )

    # 0.05 * 9.5882^2 * 3 * 4 = 55.2 and 0.05 * 11.1267^2 * 6 * 4 = 148.6, made even.
    sizes = [n for n in asked if n > 2]
    assert sizes == ([56] if same else [56, 148])
    assert proposal.images == (112 if same else 204)
    assert sum(len(labels) for _, labels in proposal.update_batches) == 56


@pytest.mark.parametrize("training", [True, False])
def test_a_proposal_leaves_no_trace_in_the_network(training: bool) -> None:
    network, architecture = resnet()
    network.train(training)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    images = stream()

    for site in sites_of(architecture):
        propose(
            Request(
                network=network,
                site=site,
                count=2,
                sample=lambda n: images.sample(n, 32),
                available=len(images),
                settings=GrowthSettings(),
                generator=torch.Generator(),
            )
        )

    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert all(m.training == training for m in network.modules())
    assert all(p.grad is None for p in network.parameters())
