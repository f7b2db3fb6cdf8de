import shutil
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.closure import ROOT
from tests.pipeline.tiny import read_demo, write_params


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A copy of the repository's code without what was made, under DVC alone."""
    for name in ("tinygrow", "pipeline", "networks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".dvc").mkdir()
    config = (ROOT / ".dvc" / "config").read_text().replace("autostage = true", "no_scm = true")
    (tmp_path / ".dvc" / "config").write_text(config)
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with the demo's parameters and what its stages read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    write_params(tmp_path, read_demo())
    for file in (paths.prepared("digits"), paths.grown("demo")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"content")
    return tmp_path
