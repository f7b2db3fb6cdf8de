import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.checkpoint import load_checkpoint, save_checkpoint
from tinygrow.errors import SettingError, TinygrowError
from tinygrow.growth.schedule import visits
from tinygrow.growth.sites import sites_of
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_multiply_adds
from tinygrow.settings.network import CustomSettings

SHAPE = (3, 8, 8)
SMALL = CustomSettings(network="tests.networks.own:small", start=0.3, arguments={"hidden": 6})


def final(settings: CustomSettings = SMALL) -> Architecture:
    return final_architecture(settings, SHAPE, 4)


def test_widths_are_the_networks_own_and_the_seed_has_a_share_of_them() -> None:
    assert final().middle_widths == (5, 6)
    assert seed_architecture(SMALL, final()).middle_widths == (2, 2)
    tiny = replace(SMALL, start=0.01)
    assert seed_architecture(tiny, final(tiny)).middle_widths == (1, 1)


def test_the_seed_network_is_the_full_one_narrowed() -> None:
    full = build_network(final(), 3)
    seed = build_network(seed_architecture(SMALL, final()), 3)

    assert torch.equal(seed[0].weight, full[0].weight[:2])
    torch.testing.assert_close(seed[4].weight, full[4].weight[:2, :8] * (5 / 2) ** 0.5)
    torch.testing.assert_close(seed[6].weight, full[6].weight[:, :2] * (6 / 2) ** 0.5)
    assert seed(torch.randn(2, *SHAPE)).shape == (2, 4)


def test_the_seed_decides_the_weights_and_no_generator_moves() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()

    one, two, other = (build_network(final(), seed)[0].weight for seed in (1, 1, 2))

    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_architecture_is_plain_data_and_finds_its_sites() -> None:
    architecture = final()
    again = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))

    assert again == architecture and hash(again) == hash(architecture)
    assert [(s.first, s.second, s.index) for s in sites_of(again)] == [("0", "4", 0), ("4", "6", 1)]
    assert not {"network", "arguments"} & set(
        Architecture(kind="mlp", input_shape=SHAPE, classes=2).to_dict()
    )


def test_a_checkpoint_brings_it_back(tmp_path: Path) -> None:
    architecture = final().with_middle_width(0, 3)
    network = build_network(architecture, 5).eval()
    save_checkpoint(tmp_path / "x.safetensors", architecture, network, {})

    loaded = load_checkpoint(tmp_path / "x.safetensors")

    assert loaded.architecture == architecture
    x = torch.randn(2, *SHAPE)
    assert torch.equal(loaded.network(x), network(x))


def test_a_plan_may_have_a_remainder() -> None:
    plan = list(visits((2, 2), (5, 6), 2))
    assert [v.target for v in plan] == [4, 4, 5, 6]
    assert [v.target for v in visits((1,), (2,), 3)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tests.networks.nowhere:small", "no module tests.networks.nowhere; put it beside"),
        ("nowhere.own:small", "no module nowhere; put it beside params.yaml"),
        ("tests.networks.own:big", "has no function 'big'; define big(input_shape, classes)"),
        ("tests.networks.own:VALUE", "has no function 'VALUE'"),
        ("tests.networks.own:fails", "fails (ValueError: no such thing)"),
        ("tests.networks.own:no_module", "returned a str; it must return a torch.nn.Module"),
        ("tests.networks.own:other_logits", "gives (2, 5) for 2 images; it must give logits (2, 4"),
        ("tests.networks.own:does_not_run", "does not run on images of (3, 8, 8)"),
        ("tests.networks.own:views", "take flatten or reshape where it takes view"),
        ("tests.networks.own:nothing_grows", "may grow: 1: its outputs are the network's own"),
        (
            "tests.networks.own:untraceable",
            "that may grow: the network: the network's way",
        ),
    ],
)
def test_what_is_wrong_with_a_network_is_said(name: str, says: str) -> None:
    with pytest.raises(TinygrowError) as error:
        final(CustomSettings(network=name))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_arguments_that_the_function_does_not_take_are_told() -> None:
    with pytest.raises(TinygrowError, match=r"call with \(3, 8, 8\), 4, depth=3 fails"):
        final(replace(SMALL, arguments={"depth": 3}))


def test_a_module_that_does_not_import_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_one.py").write_text("1 / 0")
    (tmp_path / "needy.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TinygrowError, match=r"broken_one does not import .Zero"):
        final(CustomSettings(network="broken_one:f"))
    with pytest.raises(TinygrowError, match="needy needs not_installed_anywhere"):
        final(CustomSettings(network="needy:f"))


def test_widths_of_other_code_are_refused() -> None:
    architecture = replace(final(), middle_widths=(1, 2, 3))
    with pytest.raises(TinygrowError, match="3 middle widths for a network that can grow at 2"):
        build_network(architecture)


@pytest.mark.parametrize("name", ["vgg", "networks/vgg.py:vgg", "networks.vgg", "a:b:c", "3a:b"])
def test_the_name_of_a_function_is_checked(name: str) -> None:
    with pytest.raises(SettingError, match=r"package\.module:function"):
        CustomSettings(network=name)


def test_tokens_count_in_the_multiply_adds() -> None:
    layer = torch.nn.Linear(3, 5)
    network = torch.nn.Sequential(torch.nn.Flatten(2), layer)
    assert count_multiply_adds(network, (7, 1, 3)) == 7 * 3 * 5
