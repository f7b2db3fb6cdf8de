"""What `tinygrow clean-state` does: list saved states, remove those that nothing goes on from."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import state
from pipeline.params import Params
from tinygrow.state.folder import about, has_state, holder, lock, remove

_TOLD = 3  # differences named in a line


@dataclass(frozen=True, slots=True)
class Kept:
    """One folder of states.

    Attributes:
        folder: where it lies.
        what: stage, model and progress, for people.
        hours: since its last save.
        megabytes: on disk.
        old: why no run goes on from it; empty where the next one does, or nobody knows.
        note: what else there is to say of it.
        busy: who works on it; empty where nobody does.
    """

    folder: Path
    what: str
    hours: float
    megabytes: float
    old: str
    note: str
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
        old, note = _judge(folder, meta, values)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        yield Kept(
            folder=folder,
            what=f"{meta.get('stage', '?')} {model}: {meta.get('progress', 'unknown progress')}",
            hours=(time.time() - folder.stat().st_mtime) / 3600,
            megabytes=size / 1e6,
            old=old,
            note=note,
            busy=holder(folder),
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
    fate = f"old: {kept.old}" if kept.old else kept.note
    if kept.busy:
        fate = f"process {kept.busy} works on it"
    return f"{kept.folder}  {kept.what}, {kept.hours:.1f} h ago, {kept.megabytes:.1f} MB; {fate}"


def _judge(folder: Path, meta: dict[str, Any], values: Params) -> tuple[str, str]:
    """Return why a state is old, or what else there is to say of it."""
    stage, model, belongs = meta.get("stage"), meta.get("model"), meta.get("belongs")
    if not has_state(folder):
        return "it holds no state", ""
    if stage not in state.READ or not isinstance(belongs, dict):
        return "", "nobody knows what it belongs to (its about.json is damaged)"
    if model not in values.names("models"):
        return f"there is no model {model} in the present params.yaml", ""
    try:
        device, count = belongs.get("device", "cpu"), belongs.get("processes", 1)
        now = state.belonging(stage, values, model, device, count)
    except OSError as error:
        return "", f"its input {error.filename} is not there"
    changed = state.differences(belongs, now)
    if changed:
        more = f" and {len(changed) - _TOLD} more" if len(changed) > _TOLD else ""
        return f"changed since then are {', '.join(changed[:_TOLD])}{more}", ""
    return "", "the next run goes on from it"
