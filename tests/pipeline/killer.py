"""Run a stage, kill it at random moments, and run it again, until it is done.

A program of its own that loads everything once and forks for each run:

    python -m tests.pipeline.killer FOLDER STAGE MODEL KILLS SEED

makes what STAGE needs, and prints the exit statuses as JSON. What an uninterrupted run makes, in a
copy of FOLDER, lies in FOLDER/whole.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from pipeline import cli, progress, schema, state, stopping
from pipeline.stages import download, finetune, grow

LOADED = (cli, progress, schema, state, stopping, download, finetune, grow)
STAGES = ("download", "grow", "finetune")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start(folder: Path, command: list[str]) -> int:
    """Fork a process that runs the command; return its number."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.chdir(folder)
        with Path("log.txt").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.argv = ["tinygrow", *command]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
        cli.main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        os._exit(status)


def wait(process: int, seconds: float | None = None) -> int | None:
    """Return the exit status, or None if there is none within `seconds`."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, 0 if end is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        assert end is not None
        if time.monotonic() > end:
            return None
        time.sleep(0.002)


def main() -> None:
    """Do it."""
    folder, stage, model, kills, seed = Path(sys.argv[1]), *sys.argv[2:4], *map(int, sys.argv[4:6])
    chance = random.Random(seed)
    torch.set_num_threads(1)
    weight = torch.nn.Parameter(torch.ones(1))  # PyTorch loads half of itself at the first step
    torch.optim.SGD([weight]).step()
    for before in STAGES[: STAGES.index(stage)]:
        name = "digits" if before == "download" else model
        if wait(start(folder, [before, name])) != 0:
            sys.exit((folder / "log.txt").read_text())
    whole = folder / "whole"
    shutil.copytree(folder, whole)
    run_whole(whole, stage, model)
    saves = last_save(whole, stage, model)

    statuses: list[int] = []
    while not statuses or statuses[-1] != 0:
        begun = last_save(folder, stage, model)
        process = start(folder, [stage, model, "--save-every", "0"])
        ended = None
        if len(statuses) < kills:
            # So much that there is work left for every kill; it may hit anywhere in a step.
            goal = begun + chance.randint(0, saves // (kills + 2))
            while ended is None and last_save(folder, stage, model) <= goal:
                ended = wait(process, 0.0)
            time.sleep(chance.uniform(0.0, 0.03))
            if ended is None:
                os.kill(process, chance.choice(SIGNALS))
        if ended is None:
            ended = wait(process)
        assert ended is not None
        statuses.append(ended)
        if ended in (1, 2, 70):
            sys.exit((folder / "log.txt").read_text())
    print(json.dumps(statuses))


def last_save(folder: Path, stage: str, model: str) -> int:
    """Return the number of the newest saved state."""
    files = (folder / ".state").glob(f"{stage}-{model}-*/*.pt")
    return max((int(file.stem) for file in files), default=0)


def run_whole(folder: Path, stage: str, model: str) -> None:
    """Run the stage without a kill."""
    if wait(start(folder, [stage, model, "--save-every", "0"])) != 0:
        sys.exit((folder / "log.txt").read_text())


if __name__ == "__main__":
    main()
