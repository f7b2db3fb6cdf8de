"""Make the models of a pipeline folder side by side: `python -m pipeline.grid FOLDER --jobs N`.

Two `dvc repro` in one folder get in each other's way. So each model is made by `dvc repro` in a
folder of its own beside FOLDER, named `.FOLDER.MODEL`, with the settings, the cache, the inbox and
the saved states of FOLDER; then FOLDER takes it over from the cache without the work. No model is
made twice: finished ones are skipped, a lock says that another run has one, and interrupted ones go
on from their saved states, whoever began them.
"""

import argparse
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pipeline import params, state
from tinygrow.errors import TinygrowError

_SECONDS_BETWEEN_LOOKS = 0.2
_LINES_TOLD = 15  # of the log of a model that failed
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Work:
    """A model that is being made.

    Attributes:
        process: DVC, in a session of its own.
        lock: an open file, which DVC holds open as well.
        log: what it prints.
    """

    process: subprocess.Popen[bytes]
    lock: int
    log: Path


class Grid:
    """The models of one pipeline folder.

    Args:
        folder: holds `params.yaml`, `dvc.yaml` and `.dvc`.
        jobs: models that are made at a time.
    """

    def __init__(self, folder: Path, jobs: int) -> None:
        self._folder = folder.resolve()
        self._values = params.read(folder / params.DEFAULT_PATH)
        self._jobs = jobs
        self._notes = self._folder / ".dvc" / "tmp" / "grid"
        self._running: dict[str, Work] = {}
        self._cache = ""
        self._inside: subprocess.Popen[str] | None = None
        self._stopped = 0  # the signal

    def run(self, models: Sequence[str]) -> int:
        """Make the models (all of them where none is named); return the exit code.

        Raises:
            TinygrowError: there is no such model, or DVC cannot be run.
        """
        for name in models:
            self._values.require("models", name)
        names = list(dict.fromkeys(models)) or self._values.names("models")
        self._notes.mkdir(parents=True, exist_ok=True)
        (self._folder / state.FOLDER).mkdir(exist_ok=True)
        self._cache = self._in_folder("cache", "dir").strip()
        left = self._unfinished(names)
        for name in names:
            if name not in left:
                _say(f"{name}: finished")
        failed: list[str] = []
        with self._signals():
            queue = deque(self._with_data(left))
            while (queue and not self._stopped) or self._running:
                while queue and not self._stopped and len(self._running) < self._jobs:
                    self._start(queue.popleft())
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                failed += self._finish()
        if self._stopped:
            _say("stopped; the same command goes on")
            return 128 + self._stopped
        return 1 if failed else 0

    def _unfinished(self, names: Sequence[str]) -> list[str]:
        """Return the models of which DVC says that something is to be done."""
        changed = json.loads(
            self._in_folder("status", "--with-deps", "--json", *(f"report@{n}" for n in names))
        )
        stages = [stage.partition("@")[::2] for stage in changed]
        data = {key for stage, key in stages if stage == "download"}
        own = {key for stage, key in stages if stage != "download"}
        return [n for n in names if n in own or self._values.value(n, "data") in data]

    def _with_data(self, names: Sequence[str]) -> list[str]:
        """Prepare the images of the models, once for all; return the models unless stopped."""
        for data in dict.fromkeys(self._values.value(name, "data") for name in names):
            try:
                self._in_folder("repro", f"download@{data}")
            except TinygrowError:
                if self._stopped:
                    return []
                raise
        return list(names)

    def _start(self, name: str) -> None:
        lock = os.open(self._notes / f"{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            _say(f"{name}: another run is making it")
            return
        place, log = self._prepare(name), self._notes / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro", f"report@{name}"],
                cwd=place,
                env=self._environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is this program's, which passes it on
                pass_fds=(lock,),  # a DVC that outlives this program keeps others away
            )
        self._running[name] = Work(process, lock, log)
        _say(f"{name}: begins or goes on; it says how in {_near(log)}")

    def _finish(self) -> list[str]:
        """Take over what is done; return the names of what has failed."""
        failed = []
        for name, work in list(self._running.items()):
            status = work.process.poll()
            if status is None:
                continue
            log = work.log.read_text(encoding="utf-8", errors="replace")
            trouble = log if status else self._take_over(name)
            if not trouble:
                _say(f"{name}: done")
            elif self._stopped:
                _say(f"{name}: stopped")
            else:
                failed.append(name)
                lines = [f"    {line}" for line in trouble.splitlines()[-_LINES_TOLD:]]
                _say("\n".join([f"{name}: FAILED, its last lines are", *lines]))
            os.close(work.lock)
            del self._running[name]
        return failed

    def _take_over(self, name: str) -> str:
        """Let the folder itself have a finished model; return what went wrong."""
        try:
            self._in_folder("repro", f"report@{name}")
        except TinygrowError as error:
            return str(error)
        shutil.rmtree(self._place(name))
        return ""

    def _place(self, name: str) -> Path:
        # Beside the folder, so that relative paths and with them DVC's stages stay the same.
        return self._folder.parent / f".{self._folder.name}.{name}"

    def _prepare(self, name: str) -> Path:
        """Return the folder that a model is made in; what an earlier run left there stays."""
        place = self._place(name)
        (place / ".dvc").mkdir(parents=True, exist_ok=True)
        for file in ("params.yaml", "dvc.yaml", ".dvcignore"):
            if (self._folder / file).is_file():
                shutil.copyfile(self._folder / file, place / file)
        (place / ".dvc" / "config").write_text(
            "[core]\n    analytics = false\n    check_update = false\n    no_scm = true\n"
            f'[cache]\n    dir = {self._cache}\n    type = "reflink,hardlink,copy"\n',
            encoding="utf-8",
        )
        for shared in (state.FOLDER, "inbox"):
            if (self._folder / shared).is_dir() and not (place / shared).exists():
                (place / shared).symlink_to(self._folder / shared, target_is_directory=True)
        return place

    def _in_folder(self, *arguments: str) -> str:
        """Return what DVC prints in the folder itself, where one runs at a time."""
        with (self._notes / "folder.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._inside = subprocess.Popen(
                [sys.executable, "-m", "dvc", *arguments],
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                text=True,
            )
            printed, errors = self._inside.communicate()
            status, self._inside = self._inside.returncode, None
        if status:
            raise TinygrowError(
                f"dvc {' '.join(arguments)} failed in {self._folder.name}:\n{printed}{errors}"
            )
        return printed

    def _environment(self) -> Mapping[str, str]:
        threads = max(1, (os.cpu_count() or 1) // self._jobs)
        return {
            "OMP_NUM_THREADS": str(threads),
            **{key: value for key, value in os.environ.items() if key != "DVC_ROOT"},
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        }

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Pass signals on, as requests to save and stop."""

        def ask(number: int, _: FrameType | None) -> None:
            self._stopped = number
            for process in [self._inside, *(work.process for work in self._running.values())]:
                if process is not None and process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGINT)

        before = {number: signal.signal(number, ask) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.grid", description=__doc__)
    parser.add_argument("folder", type=Path, help="pipeline folder, such as experiments/paper")
    parser.add_argument("models", nargs="*", help="models to make; all where none is named")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time: one for each GPU")
    chosen = parser.parse_intermixed_args(arguments)
    if chosen.jobs < 1:
        parser.error(f"--jobs is {chosen.jobs}; it must be at least 1")
    try:
        return Grid(chosen.folder, chosen.jobs).run(chosen.models)
    except TinygrowError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
