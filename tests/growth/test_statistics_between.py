"""Moments through pooling, flattening and tokens, against autograd of the layers themselves."""

import copy
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.growth.own_networks import Between
from tests.growth.scenes import EXACT, random_units
from tinygrow.growth.amplitude import Trial, normalize
from tinygrow.growth.bottleneck import best_update, bottleneck, optimal_neurons
from tinygrow.growth.discovery import find_sites
from tinygrow.growth.patches import patch_size, taps
from tinygrow.growth.statistics import (
    batch_statistics,
    desired_update,
    neuron_moments,
    update_moments,
)
from tinygrow.growth.surgery import as_units, widen

CLOSE = {"rtol": 1e-10, "atol": 1e-12}

CASES: dict[str, tuple[dict, list[nn.Module], nn.Module]] = {
    "average": ({"padding": 1}, [nn.AvgPool2d(2)], nn.Conv2d(3, 4, 3, padding=1)),
    "average with padding": (
        {"stride": 2, "padding": 1},
        [nn.AvgPool2d(3, stride=2, padding=1)],
        nn.Conv2d(3, 4, 2, dilation=2, padding=2),
    ),
    "average of what is there": (
        {"dilation": 2},
        [nn.AvgPool2d((2, 3), stride=(1, 2), ceil_mode=True, count_include_pad=False)],
        nn.Conv2d(3, 4, 2, stride=2),
    ),
    "adaptive": ({}, [nn.AdaptiveAvgPool2d((4, 3))], nn.Conv2d(3, 4, 3, padding=1, bias=False)),
    "two poolings": (
        {"bias": False},
        [nn.AvgPool2d(2, stride=1), nn.AdaptiveAvgPool2d(3)],
        nn.Conv2d(3, 4, 2),
    ),
    "flatten": ({"stride": 2}, [nn.Flatten()], nn.Linear(3 * 3 * 4, 4)),
    "pool, flatten": (
        {"padding": 1},
        [nn.AvgPool2d(3, stride=2), nn.Flatten()],
        nn.Linear(3 * 3 * 4, 4, bias=False),
    ),
    "global average": ({}, [nn.AdaptiveAvgPool2d(1), nn.Flatten()], nn.Linear(3, 4)),
}


def case(name: str, *extra: nn.Module) -> tuple[Between, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    first, between, second = CASES[name]
    x = torch.randn(4, 2, 8, 9, dtype=torch.float64)
    layer = nn.Conv2d(2, 3, **({"kernel_size": 3} | first))
    network = Between(layer, [*extra, *copy.deepcopy(between)], copy.deepcopy(second), x)
    return network, x, torch.randint(3, (4,))


def read_weights(
    network: Between, between: Sequence[nn.Module], x: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return S and N by autograd: fan-out weights on units that are the patches themselves.

    Unit a of `first` puts out entry a of its patch, and linear operations stand behind it. The
    derivative of `second` by its weight (c, a, t) at output j is what tap t reads there, so its
    Gram over outputs and taps is S, and that of <V, output> is N.
    """
    first, second = network.first, copy.deepcopy(network.second)
    size = patch_size(first)
    units = torch.zeros(size, *first.weight.shape[1:], dtype=x.dtype)
    entries = size - (first.bias is not None)
    units.view(size, -1)[:entries].fill_diagonal_(1.0)
    ones = None
    if first.bias is not None:
        ones = torch.zeros(size, dtype=x.dtype)
        ones[-1] = 1.0
    h = F.conv2d(x, units, ones, first.stride, first.padding, first.dilation)
    for module in between:
        h = module(h)
    read = taps(first, second)
    outputs = second.weight.shape[0]

    def put_out(weight: torch.Tensor) -> torch.Tensor:
        if isinstance(second, nn.Linear):
            return F.linear(h, weight.flatten(1))
        kernel = weight.unflatten(2, second.kernel_size)
        return F.conv2d(h, kernel, None, second.stride, second.padding, second.dilation)

    start = torch.zeros(1, size, read, dtype=x.dtype)
    rows = torch.autograd.functional.jacobian(put_out, start).reshape(-1, size, read)
    S = torch.einsum("jat,jbt->ab", rows, rows) / len(x)
    weight = torch.zeros(outputs, size, read, dtype=x.dtype, requires_grad=True)
    (N,) = torch.autograd.grad((put_out(weight) * target).sum(), weight)
    return S, N.transpose(0, 1).flatten(1) / len(x)


@pytest.mark.parametrize("megabytes", [256, 0])
@pytest.mark.parametrize("name", CASES)
def test_moments_are_those_of_what_the_taps_read(
    name: str, megabytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x, y = case(name, nn.Tanh())
    if not megabytes:  # one image at a time
        monkeypatch.setattr("tinygrow.growth.statistics._bound", lambda settings: 1)
    site = network.site(x)
    _, _, target = desired_update(network, site, (x, y))

    found = neuron_moments(network, site, [(x[:3], y[:3]), (x[3:], y[3:])], None, EXACT)

    S, N = read_weights(network, network.between[1:], x, target)
    torch.testing.assert_close(found.S, S, **CLOSE)
    torch.testing.assert_close(found.N, N, **CLOSE)


def test_the_maximum_is_taken_for_the_average() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(3, 2, 8, 8, dtype=torch.float64), torch.randint(3, (3,))
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    network = Between(nn.Conv2d(2, 3, 3), [pool], nn.Conv2d(3, 2, 2), x)
    site = network.site(x)
    _, _, target = desired_update(network, site, (x, y))

    found = neuron_moments(network, site, [(x, y)], None, EXACT)

    average = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
    S, N = read_weights(network, [average], x, target)
    torch.testing.assert_close(found.S, S, **CLOSE)
    torch.testing.assert_close(found.N, N, **CLOSE)
    assert "approximate" in site.note


@pytest.mark.parametrize("name", ["average with padding", "pool, flatten", "global average"])
def test_without_activation_the_moments_predict_what_new_neurons_do(name: str) -> None:
    """The mean of <V, their contribution> is tr(omega alpha N): tiny.md 1.5b."""
    network, x, y = case(name)
    site = network.site(x)
    _, _, target = desired_update(network, site, (x, y))
    moments = neuron_moments(network, site, [(x, y)], None, EXACT)
    neurons = optimal_neurons(moments.S, moments.N, 2, 1e-9)
    before = network.second(network.hidden(x))

    widen(network, site, as_units(neurons, network.first, network.second))

    added = (network.second(network.hidden(x)) - before).detach()
    predicted = float(neurons.singular_values.square().sum())
    assert float((added * target).sum()) / len(x) == pytest.approx(predicted, rel=1e-9)


@pytest.mark.parametrize("name", ["average", "pool, flatten"])
def test_the_desired_update_is_the_same_with_activations_in_place(name: str) -> None:
    network, x, y = case(name, nn.BatchNorm2d(3).double(), nn.ReLU(inplace=False))
    in_place = copy.deepcopy(network)
    in_place.between[1] = nn.ReLU(inplace=True)
    network.activation, in_place.activation = nn.ReLU(), nn.ReLU(inplace=True)
    site = network.site(x)
    units = random_units(network, site, 2)

    right = neuron_moments(network, site, [(x, y)], None, EXACT)
    found = neuron_moments(in_place, site, [(x, y)], None, EXACT)

    torch.testing.assert_close(found.N, right.N, rtol=0, atol=0)
    # Norms of pre-activations, too, are those before the activation.
    one, two = (normalize(n, site, units, (x, y)) for n in (network, in_place))
    torch.testing.assert_close(two.fan_in, one.fan_in, rtol=0, atol=0)
    torch.testing.assert_close(two.fan_out, one.fan_out, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["average", "flatten", "global average"])
def test_normalised_units_are_as_large_as_the_layers_own(name: str) -> None:
    network, x, y = case(name, nn.Tanh())
    site = network.site(x)
    units = normalize(network, site, random_units(network, site, 2), (x, y))

    trial = Trial(network, site, units)

    with batch_statistics(trial.network), torch.no_grad():
        z = trial.network.first(x)
        outputs = trial.network.second(trial.network.hidden(x))
        before = network.second(network.hidden(x))
    assert float(z[:, 3:].norm()) == pytest.approx(float(z[:, :3].norm()), rel=1e-6)
    assert float((outputs - before).norm()) == pytest.approx(float(before.norm()), rel=1e-6)
    trial.set(1.0, 0.0)
    torch.testing.assert_close(trial.network(x), network(x), **CLOSE)


class Tokens(nn.Module):
    """A pair of linear layers that every token goes through, as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 5)
        self.head = nn.Linear(5 * 6, 3)
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))).flatten(1))


def test_tokens_add_up_and_images_count() -> None:
    torch.manual_seed(0)
    network, x = Tokens(), torch.randn(7, 6, 3, dtype=torch.float64)
    y = torch.randint(3, (7,))
    (site,) = find_sites(network, x)
    a = network.second(torch.tanh(network.first(x))).detach().requires_grad_()
    loss = F.cross_entropy(network.head(torch.tanh(a).flatten(1)), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, a)
    ones = torch.ones(7, 6, 1, dtype=torch.float64)
    b = torch.cat([x, ones], 2)

    found = neuron_moments(network, site, [(x, y)], None, EXACT)
    updates = update_moments(network, site, [(x, y)], EXACT)

    torch.testing.assert_close(found.S, torch.einsum("nta,ntb->ab", b, b) / 7, **CLOSE)
    torch.testing.assert_close(found.N, -torch.einsum("nta,ntc->ac", b, gradient) / 7, **CLOSE)
    assert found.images == updates.images == 7
    delta = best_update(updates.S1, updates.M, 1e-12)
    h = torch.cat([torch.tanh(network.first(x)), ones], 2).detach()
    left = (-gradient - h @ delta.T).square().sum() / 7
    assert bottleneck(updates.power, updates.M, delta) == pytest.approx(float(left), rel=1e-9)
    units = normalize(network, site, random_units(network, site, 2), (x, y))
    assert units.fan_in.shape == (2, 3)
