"""Code dependencies as `dvc.yaml` writes them."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.closure import COMPILED, ROOT, runs_nothing


def expand(paths: Iterable[str], root: Path = ROOT) -> set[Path]:
    """Return the files that `paths` (files or folders, relative to `root`) stand for."""
    files: set[Path] = set()
    for path in map(Path, paths):
        if (root / path).is_dir():
            files |= {
                file.relative_to(root)
                for file in (root / path).rglob("*")
                if file.is_file() and file.suffix not in COMPILED
            }
        else:
            files.add(path)
    return {file for file in files if not runs_nothing(root / file)}


def compact(files: set[Path], root: Path = ROOT) -> list[str]:
    """Return `files` as sorted paths, a folder in place of its files where all are there."""
    lines: set[str] = set()
    for file in files:
        whole = [
            parent
            for parent in file.parents
            if parent.name and len(parent.parts) > 1 and expand([str(parent)], root) <= files
        ]
        lines.add(str(whole[-1] if whole else file))
    return sorted(lines)
