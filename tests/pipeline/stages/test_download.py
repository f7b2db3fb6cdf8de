import shutil
from pathlib import Path

import pytest

from pipeline.stages import download
from tests.pipeline.closure import ROOT
from tinygrow.data.prepared import load_card
from tinygrow.errors import SettingError
from tinygrow.observer import Observer


class Listener(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_prepared_file_lies_where_dvc_looks_and_is_told_of(folder: Path) -> None:
    listener = Listener()
    download.run("digits", observer=listener)
    card = load_card(folder / "data" / "digits.safetensors")
    assert card.name == "digits"
    assert sum(card.counts.values()) == 1797
    assert f"{card.counts['test']} test images of 1x" in listener.lines[-1]
    assert "in 10 classes" in listener.lines[-1]


def test_an_unknown_data_set_is_named_with_the_nearest(folder: Path) -> None:
    with pytest.raises(SettingError, match=r"no data set 'digit' .* did you mean digits\?"):
        download.run("digit", observer=Observer())
    assert not (folder / "data").exists()
