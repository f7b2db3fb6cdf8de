import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.growth.scenes import (
    SITE,
    conv_pair,
    identity,
    linear_pair,
    perceptron,
    random_units,
    resnet,
    site_of,
)
from tinygrow.architecture import final_architecture, seed_architecture
from tinygrow.errors import TinygrowError
from tinygrow.growth.bottleneck import Neurons
from tinygrow.growth.schedule import visits
from tinygrow.growth.sites import Site, sites_of
from tinygrow.growth.surgery import (
    WAKING_OFFSET,
    NewUnits,
    as_units,
    measure_running_statistics,
    widen,
)
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_parameters
from tinygrow.settings.network import ResNetSettings


def normalized(z: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return fresh BatchNorm channels' output: weight 1, bias 0, eps 1e-5."""
    return (z - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()


def new_pre_activations(network: nn.Module, units: NewUnits, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(network.stem(x), units.fan_in, units.bias, padding=1)


@torch.no_grad()
def measured(
    network: nn.Module, units: NewUnits, batches: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and unbiased variance of the new channels, all positions of all batches pooled.

    The stem normalises each mini-batch by itself, as in training.
    """
    network = copy.deepcopy(network).train()
    values = [new_pre_activations(network, units, x) for x in batches]
    pooled = torch.cat([v.transpose(0, 1).flatten(1) for v in values], 1)
    return pooled.mean(1), pooled.var(1, correction=1)


def extended_logits(
    network: nn.Module,
    units: NewUnits,
    x: torch.Tensor,
    running: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """Compute, beside the narrow network, what new units add to its only block.

    Args:
        network: one stage of one block, not widened; in the mode that is meant.
        units: of the block.
        x: images.
        running: mean and variance of the new channels in evaluation; None: those of x.
    """
    block = network.stages[0].block0
    z = new_pre_activations(network, units, x)
    mean, variance = running or (z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0))
    new = torch.relu(normalized(z, mean, variance))
    old = torch.relu(block.norm1(block.conv1(network.stem(x))))
    a = block.conv2(old) + F.conv2d(new, units.fan_out, padding=1)
    y = torch.relu(network.stem(x) + block.norm2(a))
    return network.head(network.pool(y).flatten(1))


def trained_block() -> tuple[nn.Module, Site, torch.Tensor]:
    """Return a float64 network with running statistics unlike 0 and 1."""
    network, architecture = resnet(widths=(4,), middle=(2,))
    network.double()
    x = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    network.train()
    for _ in range(20):
        network(1.5 * x + 0.5)
    return network, sites_of(architecture)[0], x


@pytest.mark.parametrize("gamma", [1.0, 0.25, 2.0**-20])
@pytest.mark.parametrize("training", [True, False])
def test_the_widened_network_computes_the_extended_forward_pass(
    training: bool, gamma: float
) -> None:
    # Acceptance check J, for BatchNorm of the mini-batch and of running statistics.
    network, site, x = trained_block()
    units = random_units(network, site, 3).scaled(gamma**0.5, gamma**0.5)
    narrow, y = copy.deepcopy(network), torch.zeros(len(x), dtype=torch.int64)

    widen(network, site, units)
    measure_running_statistics(network, [(x[:8], y[:8]), (x[8:], y[8:])], (site, 3))

    for module in (narrow, network):
        module.train(training)
    with torch.no_grad():
        running = None if training else measured(narrow, units, [x[:8], x[8:]])
        expected = extended_logits(narrow, units, x[:7], running)
        torch.testing.assert_close(network(x[:7]), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
def test_amplitudes_towards_zero_leave_the_outputs_unchanged(training: bool) -> None:
    # Acceptance check J. BatchNorm turns fan-in of variance v into v / (v + 1e-5), so the change
    # falls with the fan-out's root alone at first and with all of gamma below the eps.
    network, site, x = trained_block()
    units, batch = random_units(network, site, 3), (x, torch.zeros(len(x), dtype=torch.int64))
    changes = []
    for gamma in (1e-8, 1e-16, 1e-24, 0.0):
        wide = copy.deepcopy(network)
        widen(wide, site, units.scaled(gamma**0.5, gamma**0.5))
        measure_running_statistics(wide, [batch], (site, 3))
        for module in (network, wide):
            module.train(training)
        with torch.no_grad():
            changes.append(float((wide(x) - network(x)).abs().max()))

    assert changes[0] < 1e-1
    # Proportional to gamma, with the gain 1 / sqrt(eps) = 316, and float64 rounding.
    assert changes[1] == pytest.approx(1e-8 * changes[0], rel=0.5)
    assert changes[2] < 1e-13
    assert changes[3] < 1e-14


def test_a_perceptron_computes_the_extended_forward_pass() -> None:
    network, architecture = perceptron((4, 5))
    network.double()
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    site = sites_of(architecture)[0]
    units = random_units(network, site, 3)
    with torch.no_grad():
        flat = x.flatten(1)
        new = torch.relu(flat @ units.fan_in.T + units.bias)
        old = torch.relu(network.layers[0](flat))
        second = torch.relu(network.layers[1](old) + new @ units.fan_out.T)
        expected = network.head(second)

    widen(network, site, units)

    torch.testing.assert_close(network(x).detach(), expected, rtol=1e-12, atol=1e-12)
    assert network.layers[0].out_features == network.layers[1].in_features == 7


@pytest.mark.parametrize("bias", [True, False])
def test_widening_appends_and_reports_every_replaced_parameter(bias: bool) -> None:
    network, (x, _) = conv_pair(first={"bias": bias}, second={"bias": bias})
    before = dict(network.named_parameters())
    units = random_units(network, SITE, 2)

    replaced = widen(network, SITE, units)

    after = dict(network.named_parameters())
    changed = {name for name in after if after[name] is not before[name]}
    assert changed == {"first.weight", "second.weight"} | ({"first.bias"} if bias else set())
    assert {id(r.old) for r in replaced} == {id(before[name]) for name in changed}
    assert {id(r.new) for r in replaced} == {id(after[name]) for name in changed}
    for r in replaced:
        assert torch.equal(r.new.narrow(r.dim, 0, r.old.shape[r.dim]), r.old)
        assert r.new.requires_grad
        assert r.new.is_leaf
    assert torch.equal(network.first.weight[3:], units.fan_in)
    assert torch.equal(network.second.weight[:, 3:], units.fan_out)
    assert (network.first.out_channels, network.second.in_channels) == (5, 5)
    network(x).sum().backward()
    assert network.first.weight.grad.shape == (5, 2, 3, 3)


def test_widening_keeps_channels_last_memory() -> None:
    network, architecture = resnet(middle=(2, 3))
    network.to(memory_format=torch.channels_last)
    site = sites_of(architecture)[0]

    widen(network, site, random_units(network, site, 2))

    for layer in site.layers(network):
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_closed_form_vectors_become_weights_in_the_order_of_the_patches() -> None:
    network, (x, _) = conv_pair(activation=identity)
    first, second = network.first, network.second
    alpha = torch.randn(2, 2 * 9 + 1, dtype=torch.float64)
    omega = torch.randn(2, 4 * 9, dtype=torch.float64)
    neurons = Neurons(alpha, omega, torch.ones(2), torch.ones(2))

    units = as_units(neurons, first, second)

    columns = F.unfold(x, 3, padding=1)
    expected = alpha[:, :-1] @ columns + alpha[:, -1:]
    z = F.conv2d(x, units.fan_in, units.bias, padding=1)
    torch.testing.assert_close(z.flatten(2), expected, rtol=1e-12, atol=1e-12)
    for k, c, ty, tx in [(0, 0, 0, 0), (1, 3, 2, 1), (0, 2, 1, 2)]:
        assert units.fan_out[c, k, ty, tx] == omega[k, c * 9 + ty * 3 + tx]


def test_layers_without_bias_get_units_without_bias() -> None:
    network, _ = linear_pair()
    network.first = nn.Linear(5, 4, bias=False)
    neurons = Neurons(torch.ones(2, 5), torch.ones(2, 6), torch.ones(2), torch.ones(2))

    units = as_units(neurons, network.first, network.second.float())

    assert units.bias is None
    assert units.fan_in.shape == (2, 5)
    assert units.scaled(2.0, 3.0).bias is None
    assert units.fan_in.dtype == torch.float32


def test_running_statistics_of_new_channels_are_measured_and_of_old_ones_kept() -> None:
    network, site, x = trained_block()
    norm = network.stages[0].block0.norm1
    kept = norm.running_mean.clone(), norm.running_var.clone()
    buffers = {k: v.clone() for k, v in network.named_buffers() if "norm1" not in k}
    units = random_units(network, site, 3)
    labels = torch.zeros(12, dtype=torch.int64)
    network.eval()
    widen(network, site, units)
    tracked = int(norm.num_batches_tracked)

    batches = [(x[:5], labels[:5]), (x[5:], labels[5:])]
    measure_running_statistics(network, batches, (site, 3))

    mean, variance = measured(network, units, [b for b, _ in batches])
    close = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(norm.running_mean[2:], mean, **close)
    torch.testing.assert_close(norm.running_var[2:], variance, **close)
    assert torch.equal(norm.running_mean[:2], kept[0])
    assert torch.equal(norm.running_var[:2], kept[1])
    assert int(norm.num_batches_tracked) == tracked
    for name, value in network.named_buffers():
        assert "norm1" in name or torch.equal(value, buffers[name]), name
    assert not network.training
    assert not norm._forward_pre_hooks


def test_all_running_statistics_are_measured_where_the_function_changed() -> None:
    network, site, x = trained_block()
    widen(network, site, random_units(network, site, 3))
    # PyTorch's own update with momentum 1 is the statistics of the one batch it sees.
    oracle = copy.deepcopy(network).train()
    for module in oracle.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        oracle(x)

    measure_running_statistics(network, [(x, torch.zeros(len(x), dtype=torch.int64))])

    expected = {k: v for k, v in oracle.named_buffers() if "running" in k}
    assert len(expected) > 2
    for name, value in expected.items():
        torch.testing.assert_close(network.get_buffer(name), value, rtol=1e-9, atol=1e-11)


def test_new_batch_norm_channels_start_with_weight_1_and_bias_0() -> None:
    network, site, _ = trained_block()
    norm = network.stages[0].block0.norm1

    replaced = widen(network, site, random_units(network, site, 3))

    assert norm.num_features == 5
    assert norm.weight[2:].tolist() == [1.0] * 3
    assert norm.bias[2:].tolist() == [0.0] * 3
    assert norm.running_mean[2:].tolist() == [0.0] * 3
    assert norm.running_var[2:].tolist() == [1.0] * 3
    assert {"running_mean", "running_var"} <= set(dict(norm.named_buffers()))
    assert any(r.new is norm.weight for r in replaced)
    assert any(r.new is norm.bias for r in replaced)


@pytest.mark.parametrize("normed", [True, False])
def test_an_offset_shifts_what_the_activation_of_new_units_reads(normed: bool) -> None:
    network, (x, _) = conv_pair(normed=normed)
    site = site_of(network)
    units = replace(random_units(network, site, 2), offset=0.25).scaled(0.5, 3.0)
    plain, shifted = copy.deepcopy(network), network

    widen(plain, site, replace(units, offset=0.0))
    widen(shifted, site, units)

    assert units.offset == 0.25  # no scaling reaches it
    for training in (True, False):
        with torch.no_grad():
            reads = [n.train(training).norm(n.first(x)) for n in (plain, shifted)]
        torch.testing.assert_close(reads[1][:, :3], reads[0][:, :3], rtol=0, atol=0)
        torch.testing.assert_close(reads[1][:, 3:], reads[0][:, 3:] + 0.25, rtol=1e-12, atol=1e-12)


def test_an_offset_needs_a_bias_to_live_in() -> None:
    network, _ = conv_pair(first={"bias": False}, normed=True)
    site = site_of(network)
    units = replace(random_units(network, site, 2), offset=1e-6)
    bare = replace(site, norm=None)
    before = copy.deepcopy(network.state_dict())

    with pytest.raises(TinygrowError, match=r"^first has no bias, .* gradmax$"):
        widen(network, bare, units)
    plain = copy.deepcopy(network)
    plain.norm = nn.BatchNorm2d(3, affine=False).double()
    with pytest.raises(TinygrowError, match=r"^norm has no bias"):
        widen(plain, site, units)

    after = network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    widen(network, site, units)  # the convolution needs no bias where a norm has one
    assert network.norm.bias[3:].tolist() == [1e-6] * 2


def test_neurons_without_fan_in_get_an_offset() -> None:
    network, _ = conv_pair()
    alpha = torch.zeros(2, 2 * 9 + 1, dtype=torch.float64)
    omega, ones = torch.ones(2, 4 * 9, dtype=torch.float64), torch.ones(2)

    silent = as_units(Neurons(alpha, omega, ones, ones), network.first, network.second)
    alpha[1, -1] = 1e-9
    heard = as_units(Neurons(alpha, omega, ones, ones), network.first, network.second)

    assert silent.offset == WAKING_OFFSET > 0
    assert heard.offset == 0.0


# --- planning and surgery at the paper's size (acceptance check I)


@pytest.mark.parametrize(
    ("start", "extensions", "parameters"), [(1 / 4, 16, 3_368_516), (1 / 64, 21, 429_566)]
)
def test_resnet18_reaches_its_widths_and_parameters(
    start: float, extensions: int, parameters: int
) -> None:
    settings = ResNetSettings(base_width=64, start=start)
    final = final_architecture(settings, (3, 32, 32), 100)
    architecture = seed_architecture(settings, final)
    # Without storage: shapes are all that is looked at.
    with torch.device("meta"):
        network = build_network(architecture)
        assert count_parameters(network) == parameters
        sites = sites_of(architecture)
        for visit in visits(architecture.middle_widths, final.middle_widths, extensions):
            site = sites[visit.index]
            first, second = site.layers(network)
            count = visit.target - first.out_channels
            assert count in (3, 6, 12, 24)
            fan_in = torch.empty(count, *first.weight.shape[1:])
            fan_out = torch.empty(second.out_channels, count, 3, 3)
            widen(network, site, NewUnits(fan_in, torch.empty(count), fan_out))

    widths = [site.layers(network)[0].out_channels for site in sites]
    assert widths == [64, 64, 128, 128, 256, 256, 512, 512]
    assert count_parameters(network) == 12_773_156
    wide = {name: value.shape for name, value in network.state_dict().items()}
    with torch.device("meta"):
        built = build_network(final).state_dict()
    assert wide == {name: value.shape for name, value in built.items()}
