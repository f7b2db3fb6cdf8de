"""DVC as its users run it, without a word to anyone."""

import os
import subprocess
import sys
from pathlib import Path


def environment() -> dict[str, str]:
    """Return the environment for subprocesses: this Python first, no word to anyone."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }


def dvc(folder: Path, *arguments: str) -> str:
    """Return what `dvc ARGUMENTS` prints in `folder`; its failure fails the test."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
