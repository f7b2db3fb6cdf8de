"""The Python of docs/deploy.md runs."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import package
from pipeline.closure import ROOT
from tinygrow.observer import Observer

PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_there_are_two() -> None:
    assert len(SNIPPETS) == 2


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs(workspace: Path, capsys: pytest.CaptureFixture[str], number: int) -> None:
    package.run("toy", observer=Observer())
    capsys.readouterr()
    pixels = np.zeros((8, 8), np.uint8)
    if number == 0:  # the second looks at a black image
        pixels[:, 4:6] = 220
    Image.fromarray(pixels).save("photo.png")
    names: dict[str, object] = {}
    exec(SNIPPETS[number].replace("/demo/", "/toy/"), names)
    assert capsys.readouterr().out.startswith(("two/2 0.9", "zero 0.33")[number])
    if number == 0:
        answers = names["answers"]
        assert isinstance(answers, list)
        assert [answer.label for answer in answers] == ["two/2"] * 2
