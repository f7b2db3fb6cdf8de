"""Growth of a network of one's own: its plan, its state, its optimiser."""

from pathlib import Path

import pytest
import torch

from tests.growth.scenes import patterns, quick_settings, random_units, stream
from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.checkpoint import load_checkpoint, save_checkpoint
from tinygrow.growth.cost import CostModel, plan_cost
from tinygrow.growth.extend import extend
from tinygrow.growth.grow import Grown, grow
from tinygrow.growth.sites import sites_of
from tinygrow.growth.surgery import widen
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_multiply_adds
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.network import CustomSettings
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.loop import Trainer
from tinygrow.training.optimizer import make_optimizer, pad_optimizer

VGG = CustomSettings(
    network="networks.vgg:vgg", start=0.4, arguments={"widths": [4, 5], "hidden": 7}
)


def architectures() -> tuple[Architecture, Architecture]:
    final = final_architecture(VGG, (3, 8, 8), 3)
    return seed_architecture(VGG, final), final


def grown(settings: GrowthSettings) -> Grown:
    start, final = architectures()
    images = stream()
    return grow(build_network(start, 0), start, final, images, patterns(30, seed=2), settings)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_reaches_widths_that_the_extensions_do_not_divide(optimizer: str) -> None:
    training = TrainingSettings(
        optimizer=optimizer, momentum=0.9 * (optimizer == "sgd"), ema=0.5, batch_size=16
    )
    done = grown(quick_settings(extensions=2, optimizer_state="pad", training=training))

    assert architectures()[0].middle_widths == (2, 2, 3)
    assert done.architecture.middle_widths == (4, 5, 7)
    assert [row.widths for row in done.rows[1:4]] == [(3, 2, 3), (3, 4, 3), (3, 4, 5)]
    x = torch.randn(2, 3, 8, 8)
    loaded = build_network(done.architecture)
    loaded.load_state_dict(done.network.state_dict())
    assert torch.equal(loaded.eval()(x), done.network(x))


def test_grow_save_load_grow_is_grow_grow(tmp_path: Path) -> None:
    """A checkpoint between two extensions changes no bit."""
    start, _ = architectures()
    sites = sites_of(start)
    results = []
    for saved in (False, True):
        network = build_network(start, 0)
        settings = quick_settings(batch_growth="constant")
        architecture = start
        for visit, site in enumerate(sites[:2]):
            images = stream(seed=visit)
            trainer = Trainer(network, images, settings.training, total_epochs=1.0)
            generator = torch.Generator().manual_seed(visit)
            done = extend(network, site, 2, trainer, settings, generator=generator)
            assert done.added == 2
            width = architecture.middle_widths[site.index]
            architecture = architecture.with_middle_width(site.index, width + done.added)
            if saved:
                save_checkpoint(tmp_path / "x.safetensors", architecture, network, {})
                network = load_checkpoint(tmp_path / "x.safetensors").network
        results.append(network.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_optimizer_state_follows_the_columns_of_a_flattened_map() -> None:
    start, _ = architectures()
    network = build_network(start, 0)
    optimizer = make_optimizer(network, TrainingSettings(momentum=0.9, weight_decay=0.1))
    for _ in range(2):
        network(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    site = sites_of(start)[1]
    _, second = site.layers(network)
    before = optimizer.state[second.weight]["momentum_buffer"].clone()

    replaced = widen(network, site, random_units(network, site, 3))
    pad_optimizer(optimizer, replaced)

    after = optimizer.state[site.layers(network)[1].weight]["momentum_buffer"]
    assert torch.equal(after[:, : before.shape[1]], before)
    # 8x8 images behind two poolings: four positions of three new channels.
    assert after.shape[1] == before.shape[1] + 12 and not after[:, before.shape[1] :].any()
    decayed, free = (group["params"] for group in optimizer.param_groups)
    assert {p.ndim > 1 for p in decayed} == {True} and {p.ndim > 1 for p in free} == {False}
    assert {id(p) for p in decayed + free} == {id(p) for p in network.parameters()}


def test_costs_are_those_of_the_network_at_each_width() -> None:
    start, final = architectures()
    model = CostModel(start, quick_settings(), 96)
    for architecture in (start, final, final.with_middle_width(1, 3)):
        network = build_network(architecture)
        right = count_multiply_adds(network, (3, 8, 8))
        assert model.forward(architecture.middle_widths) == right
    # N of conv to linear: patches of 2 channels, 3 outputs times four positions.
    assert model.size(1) == (2 * 9) * (3 * 4)
    plan = plan_cost(start, final, quick_settings(extensions=2), 96)
    assert plan.end.middle_widths == final.middle_widths
    assert all(v.extension is None or v.extension.statistics > 0 for v in plan.visits)
