"""The pages keep their word: code runs, links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("*/README.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/results/**/*.md")),
]


def test_the_code_for_a_network_of_ones_own_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/growing.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 35
    names: dict[str, object] = {}
    exec(code, names)
    model, found = names["model"], names["found"]
    assert len(found) == 8  # type: ignore[arg-type]
    assert model.layer1[0].conv1.out_channels == 66  # type: ignore[attr-defined]
    assert "\nlayer1.0.conv1 2 " in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_code_that_are_named_are_there(page: Path) -> None:
    for folder, names in re.findall(
        r"`((?:tinygrow|pipeline|benchmarks|tests)/(?:\w+/)*)([\w{},]+)\.py`", page.read_text()
    ):
        for name in names.strip("{}").split(","):
            assert (ROOT / folder / f"{name}.py").exists(), f"{folder}{name}.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
