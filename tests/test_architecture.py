import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.errors import TinygrowError
from tinygrow.settings.network import MLPSettings, ResNetSettings

RESNET: dict[str, Any] = {
    "kind": "resnet",
    "input_shape": (3, 32, 32),
    "classes": 10,
    "stage_widths": (4, 8),
    "blocks": (2, 1),
    "middle_widths": (1, 2, 3),
}
MLP: dict[str, Any] = {
    "kind": "mlp",
    "input_shape": (1, 8, 8),
    "classes": 10,
    "middle_widths": (5, 6),
}
width = st.integers(1, 512)


@st.composite
def resnets(draw: st.DrawFn) -> Architecture:
    stages = draw(st.integers(1, 5))
    blocks = draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages))
    side = st.integers(2 ** (stages - 1), 64)
    return Architecture(
        kind="resnet",
        input_shape=(draw(st.integers(1, 4)), draw(side), draw(side)),
        classes=draw(st.integers(2, 1000)),
        stage_widths=tuple(draw(st.lists(width, min_size=stages, max_size=stages))),
        blocks=tuple(blocks),
        middle_widths=tuple(draw(st.lists(width, min_size=sum(blocks), max_size=sum(blocks)))),
    )


mlps = st.builds(
    Architecture,
    kind=st.just("mlp"),
    input_shape=st.tuples(width, width, width),
    classes=st.integers(2, 1000),
    middle_widths=st.lists(width, max_size=5).map(tuple),
)


@given(st.one_of(resnets(), mlps))
def test_comes_back_from_json_as_it_was(architecture: Architecture) -> None:
    read = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))
    assert read == architecture
    assert hash(read) == hash(architecture)


@given(st.one_of(resnets(), mlps), st.data())
def test_one_middle_width_can_be_changed(architecture: Architecture, data: st.DataObject) -> None:
    if not architecture.middle_widths:
        return
    index = data.draw(st.integers(0, len(architecture.middle_widths) - 1))
    wider = architecture.with_middle_width(index, 1000)
    assert wider.middle_widths[index] == 1000
    old = architecture.middle_widths[index]
    assert wider.with_middle_width(index, old) == architecture


def test_is_a_value() -> None:
    with pytest.raises(FrozenInstanceError):
        Architecture(**MLP).classes = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (MLP, {"kind": "vgg"}, "'vgg'; it must be one of resnet, mlp, custom"),
        (MLP, {"classes": 1}, "1 classes"),
        (MLP, {"classes": -3}, "-3 classes"),
        (MLP, {"input_shape": (3, 0, 8)}, "at least 1"),
        (MLP, {"input_shape": (64,)}, "channels, height, width"),
        (MLP, {"input_shape": ()}, "channels, height, width"),
        (MLP, {"middle_widths": (5, 0)}, "at least 1"),
        (RESNET, {"stage_widths": (4, 0)}, "at least 1"),
        (RESNET, {"middle_widths": (1, 2)}, "2 middle widths for 3 blocks"),
        (RESNET, {"middle_widths": ()}, "0 middle widths for 3 blocks"),
        (RESNET, {"blocks": (3,)}, r"blocks \(3,\) for stage widths \(4, 8\)"),
        (RESNET, {"blocks": (3, 0)}, "at least one block"),
        (RESNET, {"blocks": (), "stage_widths": (), "middle_widths": ()}, "at least one block"),
        (RESNET, {"input_shape": (3, 1, 32)}, "1x32 are too small for 2 stages.*at least 2x2"),
    ],
)
def test_what_cannot_be_built_is_refused(
    base: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(TinygrowError, match=words) as caught:
        Architecture(**(base | changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        "resnet",
        MLP | {"depth": 3},
        {key: value for key, value in MLP.items() if key != "classes"},
        MLP | {"classes": "ten"},
        MLP | {"middle_widths": 5},
    ],
)
def test_foreign_data_is_refused(value: Any) -> None:
    with pytest.raises(TinygrowError, match=r"not an architecture.*another version"):
        Architecture.from_dict(value)


class TestFromSettings:
    def test_resnet_18(self) -> None:
        assert final_architecture(ResNetSettings(), (3, 32, 32), 100) == Architecture(
            kind="resnet",
            input_shape=(3, 32, 32),
            classes=100,
            stage_widths=(64, 128, 256, 512),
            blocks=(2, 2, 2, 2),
            middle_widths=(64, 64, 128, 128, 256, 256, 512, 512),
        )

    def test_other_shapes(self) -> None:
        settings = ResNetSettings(base_width=6, blocks=(1, 3))
        architecture = final_architecture(settings, (1, 9, 9), 5)
        assert architecture.stage_widths == (6, 12)
        assert architecture.middle_widths == (6, 12, 12, 12)

    def test_perceptron(self) -> None:
        architecture = final_architecture(MLPSettings(hidden=(20, 30)), (1, 8, 8), 10)
        assert (architecture.kind, architecture.middle_widths) == ("mlp", (20, 30))
        assert architecture.stage_widths == architecture.blocks == ()

    @pytest.mark.parametrize(
        ("start", "widths"),
        [
            (1.0, (64, 64, 128, 128, 256, 256, 512, 512)),
            (0.25, (16, 16, 32, 32, 64, 64, 128, 128)),
            (1 / 64, (1, 1, 2, 2, 4, 4, 8, 8)),
        ],
    )
    def test_growth_begins_at_a_share_of_the_middle_widths(
        self, start: float, widths: tuple[int, ...]
    ) -> None:
        settings = ResNetSettings(start=start)
        final = final_architecture(settings, (3, 32, 32), 100)
        seed = seed_architecture(settings, final)
        assert seed.middle_widths == widths
        assert seed.stage_widths == final.stage_widths, "the residual stream never grows"

    @pytest.mark.parametrize(
        ("hidden", "start", "words"),
        [
            ((12, 20), 0.125, "0.125 of a final width of 12 is 1.5.*such as 0.5, 0.25"),
            ((4,), 0.01, "0.01 of a final width of 4 is 0.04.*such as 0.5, 0.25"),
            ((4,), 1e-9, "1e-09 of a final width of 4 is 4e-09"),
            ((3, 5), 0.5, "final width of 3 is 1.5.*such as 1"),
        ],
    )
    def test_shares_that_are_not_whole_are_refused_with_some_that_are(
        self, hidden: tuple[int, ...], start: float, words: str
    ) -> None:
        settings = MLPSettings(hidden=hidden, start=start)
        with pytest.raises(TinygrowError, match=words):
            seed_architecture(settings, final_architecture(settings, (1, 8, 8), 10))
