from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from pipeline import params
from tinygrow.errors import SettingError, TinygrowError
from tinygrow.settings.check import at_least, require
from tinygrow.settings.training import AugmentationSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    cut: float = 1e-6
    on: bool = True

    def __post_init__(self) -> None:
        at_least("cut", self.cut, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    epochs: int = 10
    rate: float = 0.1
    method: Literal["tiny", "random"] = "tiny"
    sizes: tuple[int, ...] = (1, 2)
    shape: tuple[int, int] = (3, 4)
    path: str
    inner: Inner = field(default_factory=Inner)
    mirror: str = ""

    def __post_init__(self) -> None:
        at_least("epochs", self.epochs, 0)
        require(self.inner.cut <= self.rate, "inner.cut", self.inner.cut, "it must not exceed rate")


GOOD = """\
models:
  a:
    growth:
      epochs: 3
      rate: 1
      method: random
      sizes: [4, 5, 6]
      shape: [7, 8]
      path: off
      inner:
        cut: 1e-05
        on: false
      mirror: here
"""


def section(tmp_path: Path, text: str) -> Outer:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return params.read(path).section("a", "growth", Outer)


def test_values_come_out_in_the_types_of_the_dataclass(tmp_path: Path) -> None:
    got = section(tmp_path, GOOD)
    assert got == Outer(
        epochs=3,
        rate=1.0,
        method="random",
        sizes=(4, 5, 6),
        shape=(7, 8),
        path="off",
        inner=Inner(cut=1e-5, on=False),
        mirror="here",
    )
    assert type(got.rate) is float


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("epochs: 3", "epoch: 3", ":4: models.a.growth.epoch is unknown; did you mean epochs?"),
        ("      epochs: 3\n", "", ":3: models.a.growth.epochs is missing; write `epochs: 10`"),
        ("      path: off\n", "", "path is missing; write `path:` and a value"),
        ("      mirror: here\n", "", 'mirror is missing; write `mirror: ""`'),
        ("on: false", "", ".inner.on is missing; write `on: true`"),
        ("sizes: [4, 5, 6]", "", "write `sizes: [1, 2]`"),
        ("epochs: 3", "epochs: 3.5", ":4: models.a.growth.epochs is 3.5; it must be a whole"),
        ("epochs: 3", "epochs: true", "epochs is True; it must be a whole number"),
        ("rate: 1", "rate: true", ":5: models.a.growth.rate is True; it must be a number"),
        ("rate: 1", 'rate: "0.1"', "rate is '0.1'; it must be a number, such as 0.1 or 1e-5"),
        ("rate: 1", "rate: .nan", "rate is nan; it must be a number"),
        ("rate: 1", "rate: .inf", "rate is inf; it must be a number"),
        ("rate: 1", "rate:", "rate is None; it must be a number"),
        ("on: false", "on: off", ":12: models.a.growth.inner.on is 'off'; it must be true or"),
        ("path: off", "path: 3", "path is 3; it must be text"),
        (
            "method: random",
            "method: tinny",
            ":6: models.a.growth.method is 'tinny'; it must be one of tiny, random; did you mean"
            " tiny?",
        ),
        ("sizes: [4, 5, 6]", "sizes: 4", ":7: models.a.growth.sizes is 4; it must be a list"),
        ("sizes: [4, 5, 6]", "sizes: [4, x]", "sizes.1 is 'x'; it must be a whole number"),
        ("shape: [7, 8]", "shape: [7]", "shape is [7]; it must be a list of 2 values"),
        ("epochs: 3", "epochs: -1", ":4: models.a.growth.epochs is -1; it must be at least 0"),
        ("cut: 1e-05", "cut: -1", ":11: models.a.growth.inner.cut is -1.0; it must be at least 0"),
        ("    growth:\n", "    grow:\n", "models.a.growth is missing; add `growth:`"),
        ("cut: 1e-05", "cut: 2", ":11: models.a.growth.inner.cut is 2.0; it must not exceed rate"),
        ("  a:\n", "  aa:\n", "there is no model 'a' under models; did you mean aa?"),
        ("models:\n", "model:\n", ":1: models is missing; add `models:`"),
    ],
)
def test_an_error_names_line_key_value_and_remedy(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in GOOD
    with pytest.raises(SettingError) as error:
        section(tmp_path, GOOD.replace(old, new, 1))
    assert says in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "params.yaml"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("word", ["x", "tony"])
def test_no_far_word_is_suggested(tmp_path: Path, word: str) -> None:
    with pytest.raises(SettingError, match=rf"'{word}'; it must be one of tiny, random$"):
        section(tmp_path, GOOD.replace("method: random", f"method: {word}"))


def test_a_missing_block_is_named_with_its_keys(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("      inner:")]
    with pytest.raises(
        SettingError, match=r"inner is missing; write a block `inner:` with cut, on"
    ):
        section(tmp_path, text)


def test_a_block_that_is_a_value_is_refused(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("      inner:")] + "      inner: 3\n"
    with pytest.raises(SettingError, match=r":10: models.a.growth.inner is 3; it must be a block"):
        section(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1\nb: 2\n", ":2: not YAML"),
        ("a: 1\na: 2\n", ":2: not YAML"),
        ("- 1\n", "it must hold `data:` and `models:`"),
        ("", "it must hold `data:` and `models:`"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(SettingError) as error:
        params.read(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TinygrowError, match=r"does not exist in .*-C"):
        params.read()


def test_single_values_have_their_type(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("models: {a: {seed: 3, device: cpu, data: digits}, b: {seed: x}}\n")
    read = params.read(path)
    assert (read.value("a", "seed"), read.value("a", "device")) == (3, "cpu")
    assert read.names("models") == ["a", "b"]
    with pytest.raises(SettingError, match=r"models.b.seed is 'x'; it must be a whole number"):
        read.value("b", "seed")
    with pytest.raises(SettingError, match=r"there is no model 'c' .* one of a, b"):
        read.value("c", "seed")


@pytest.mark.parametrize(("old", "word"), [("true", "random"), ("false", "off")])
def test_words_that_were_true_and_false_are_named(tmp_path: Path, old: str, word: str) -> None:
    text = (
        "models:\n  a:\n    growth:\n      crop_padding: 4\n      flip: random\n      cutout: 0\n"
    )
    file = tmp_path / "params.yaml"
    file.write_text(text.replace("flip: random", f"flip: {old}"))
    with pytest.raises(SettingError) as error:
        params.read(file).section("a", "growth", AugmentationSettings)
    assert str(error.value) == (
        f"{file}:5: models.a.growth.flip is {old.title()}, as older versions had it; write"
        f" `flip: {word}`"
    )
    file.write_text(text.replace("flip: random", "flip: off"))
    assert params.read(file).section("a", "growth", AugmentationSettings).flip == "off"
