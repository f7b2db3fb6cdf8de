"""What `tinygrow clean-state` does: list saved states, remove those that nothing goes on from."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import state
from pipeline.params import Params
from tinygrow.errors import TinygrowError
from tinygrow.state.folder import about, lock, remove

_TOLD = 3  # differences named in a line


@dataclass(frozen=True, slots=True)
class Kept:
    """One folder of states.

    Attributes:
        folder: where it lies.
        what: stage, model and progress, for people.
        hours: since its last save.
        megabytes: on disk.
        old: why no run goes on from it; empty where the next one does.
        busy: who works on it; empty where nobody does.
    """

    folder: Path
    what: str
    hours: float
    megabytes: float
    old: str
    busy: str


def list_states(values: Params, models: tuple[str, ...] = ()) -> Iterator[Kept]:
    """Yield the states of this pipeline folder.

    Args:
        values: of `params.yaml`, by which a state is old or not.
        models: only theirs; none: all.
    """
    for folder in sorted(path for path in state.home().glob("*-*") if path.is_dir()):
        meta = about(folder)
        model = str(meta.get("model", "?"))
        if models and model not in models:
            continue
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        yield Kept(
            folder=folder,
            what=f"{meta.get('stage', '?')} {model}: {meta.get('progress', 'nothing saved')}",
            hours=(time.time() - folder.stat().st_mtime) / 3600,
            megabytes=size / 1e6,
            old=_why_old(meta, values),
            busy=_who(folder),
        )


def clean(kept: Kept) -> None:
    """Remove a folder of states.

    Raises:
        TinygrowError: a process works on it.
    """
    with lock(kept.folder):
        remove(kept.folder)


def line(kept: Kept) -> str:
    """Return one line on a folder of states."""
    fate = kept.busy or (f"old: {kept.old}" if kept.old else "the next run goes on from it")
    return f"{kept.folder}  {kept.what}, {kept.hours:.1f} h ago, {kept.megabytes:.1f} MB; {fate}"


def _why_old(meta: dict[str, Any], values: Params) -> str:
    stage, model, belongs = meta.get("stage"), meta.get("model"), meta.get("belongs")
    if stage not in state.READ or not isinstance(belongs, dict) or "progress" not in meta:
        return "it holds no state"
    if model not in values.names("models"):
        return f"there is no model {model} any more"
    try:
        now = state.belonging(stage, values, model, belongs.get("device", "cpu"))
    except OSError as error:
        return f"{error.filename} is gone"
    changed = state.differences(belongs, now)
    if not changed:
        return ""
    more = f" and {len(changed) - _TOLD} more" if len(changed) > _TOLD else ""
    return f"changed since then are {', '.join(changed[:_TOLD])}{more}"


def _who(folder: Path) -> str:
    try:
        lock(folder).close()
    except TinygrowError as error:
        return str(error).split(" works on")[0] + " works on it"
    return ""
