from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.report.synthetic import write_run
from tinygrow.report.history import History
from tinygrow.report.pictures import Picture, draw_pictures


def read(folder: Path, name: str, **changes: Any) -> History:
    paths = write_run(folder / name, **changes)
    return History.read(name, paths["growth.csv"], paths["growth.json"], paths["finetune.csv"])


@pytest.fixture
def make_history(tmp_path: Path) -> Callable[..., History]:
    """Return a function that writes a synthetic run and reads it back."""

    def make(name: str = "toy", **changes: Any) -> History:
        return read(tmp_path, name, **changes)

    return make


@pytest.fixture(scope="package")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return read(tmp_path_factory.mktemp("run"), "toy")


@pytest.fixture(scope="package")
def pictures(history: History) -> list[Picture]:
    """Return the pictures of `history`, drawn once."""
    return draw_pictures(history)
