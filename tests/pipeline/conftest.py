import shutil
from pathlib import Path

import pytest

from pipeline.closure import ROOT


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A copy of the repository's code without what was made, under DVC alone."""
    for name in ("tinygrow", "pipeline"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".dvc").mkdir()
    config = (ROOT / ".dvc" / "config").read_text().replace("autostage = true", "no_scm = true")
    (tmp_path / ".dvc" / "config").write_text(config)
    return tmp_path
