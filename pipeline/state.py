"""Where stages keep the state of long work, and what it belongs to.

A state belongs to the stage's settings, the content of its input files, its code, the kind of
device and the number of processes: with any of these changed, work begins anew. States lie in
`.state/` beside `.dvc/`, outside of all outputs (DVC deletes outputs before a stage runs), also for
experiments that DVC runs in a temporary copy.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.closure import ROOT, import_closure, network_code
from pipeline.params import Params
from tinygrow.distributed import processes
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.state.folder import StateFolder, about, has_state, lock, remove
from tinygrow.state.follower import Follower
from tinygrow.state.keeper import StateKeeper
from tinygrow.state.stop import StopRequest

FOLDER = ".state"
MINUTES_BETWEEN_SAVES = 3.0
# What each stage that keeps state reads of its model's block.
READ = {
    "grow": ("data", "seed", "architecture", "growth"),
    "finetune": ("data", "seed", "finetune"),
}
_DIGITS = 16  # of a key, in hexadecimal
_TOLD = 3  # differences named in a message


@contextmanager
def kept(
    stage: str,
    model: str,
    belongs: Mapping[str, Any],
    *,
    observer: Observer,
    stop: StopRequest | None = None,
    minutes: float | None = None,
) -> Iterator[StateKeeper | Follower]:
    """Open and lock the state of a stage's work for the time of the block.

    Of processes that work together, the first keeps the state; the others follow it.

    Args:
        stage: its name.
        model: whose work it is.
        belongs: from `belonging`.
        observer: is told what is restored, and why an older state is not.
        stop: where requests to stop arrive.
        minutes: between two saves.

    Raises:
        TinygrowError: another process works on the same state.
    """
    folder = home() / name(stage, model, belongs)
    if not processes().is_first:
        yield Follower(folder)
        return
    meta = {"stage": stage, "model": model, "belongs": dict(belongs)}
    with StateFolder(folder, meta) as states:
        _say_unused(folder, stage, model, belongs, observer)
        keeper = StateKeeper(
            states,
            seconds=60.0 * (MINUTES_BETWEEN_SAVES if minutes is None else minutes),
            stop=stop,
            observer=observer,
        )
        with keeper.running():
            yield keeper


def drop(stage: str, model: str) -> None:
    """Remove what a stage has kept of its work: a later stage begins, so its results are taken.

    States that a process works on stay.
    """
    for folder in sorted(home().glob(f"{stage}-{model}-*")):
        meta = about(folder)
        if (meta.get("stage"), meta.get("model"), meta.get("progress")) == (
            stage,
            model,
            "the end",
        ):
            with suppress(TinygrowError), lock(folder):
                remove(folder)


def home() -> Path:
    """Return the folder of all states of this pipeline folder."""
    # An experiment in a temporary copy is told where the repository itself is.
    root = os.environ.get("DVC_ROOT", "")
    return (Path(root) if Path(root).is_dir() else Path()) / FOLDER


def belonging(
    stage: str, values: Params, model: str, device: str, count: int = 1
) -> dict[str, Any]:
    """Return what the state of a stage's work belongs to, as plain data for JSON.

    Args:
        stage: its name; its code is the import closure of its module, and that of the network where
            the user named one.
        values: of `params.yaml`.
        model: whose work it is.
        device: kind of device, as numbers differ between kinds.
        count: of processes that work together, likewise.

    Raises:
        OSError: an input is missing.
    """
    block = values.tree["models"][model]
    inputs = [paths.prepared(block["data"])]
    if stage == "finetune":
        inputs.append(paths.grown(model))
    code = sorted(import_closure(Path("pipeline", "stages", f"{stage}.py")))
    files = {str(path): ROOT / path for path in code} | _network_files(block["architecture"])
    return {
        "settings": {key: block[key] for key in READ[stage]},
        "inputs": {str(path): _digest(path) for path in inputs},
        "code": {name: _digest(path) for name, path in files.items()},
        "device": device,
        "processes": count,
    }


def _network_files(architecture: Any) -> dict[str, Path]:
    """Return the files of a user's network, by name; none for the networks built in."""
    if isinstance(architecture, Mapping):
        architecture = architecture.get("network", "")
    return network_code(architecture.partition(":")[0]) if architecture else {}


def name(stage: str, model: str, belongs: Mapping[str, Any]) -> str:
    """Return the name of the folder of a state."""
    text = json.dumps(belongs, sort_keys=True)
    return f"{stage}-{model}-{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the settings, files and modules in which two belongings differ."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = sorted(before.keys() | after.keys())
    return [_words(key) for key in keys if before.get(key) != after.get(key)]


def _say_unused(
    current: Path, stage: str, model: str, belongs: Mapping[str, Any], observer: Observer
) -> None:
    """Say why the unfinished state of an earlier run of this stage is not gone on from."""
    if has_state(current):
        return
    others = [
        (folder, meta)
        for folder in sorted(home().glob(f"{stage}-{model}-*"))
        if folder != current
        and (meta := about(folder)).get("progress", "the end") != "the end"
        and (meta.get("stage"), meta.get("model")) == (stage, model)
    ]
    for folder, meta in others:
        changed = differences(meta.get("belongs", {}), belongs)
        more = f" and {len(changed) - _TOLD} more" if len(changed) > _TOLD else ""
        observer.say(
            f"not going on from {folder} ({meta['progress']}): changed since then are"
            f" {', '.join(changed[:_TOLD])}{more}"
        )


def _flat(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, (*place, str(key)))
    else:
        yield place, value


def _words(place: tuple[str, ...]) -> str:
    return ".".join(place[1:]) if place[0] == "settings" else place[-1]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
