"""Everything that tests want of two processes, from a program that loads PyTorch once.

python -m tests.processes.program FOLDER

leaves in FOLDER what each process found, and how each run ended.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from ruamel.yaml import YAML

from pipeline import schema, state, stopping
from pipeline.stages import download, finetune, grow
from tests.pipeline.tiny import RESNET, put, write_params, write_tiny_params
from tests.processes import scenes
from tests.processes.forked import Forked, command_line, together
from tinygrow.distributed import add_up, processes
from tinygrow.errors import TinygrowError

LOADED = (schema, state, stopping, download, finetune, grow)
PATIENCE = 60.0


def main() -> None:
    """Do it."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    stopping.SECONDS_BETWEEN_LOOKS = 0.01  # in a second of a fast machine, growth is over
    weight = torch.nn.Parameter(torch.ones(1))  # PyTorch loads half of itself at the first step
    torch.optim.SGD([weight]).step()
    told: dict[str, object] = {}

    def explore() -> None:
        torch.save(scenes.everything(), folder / f"found-{processes().rank}.pt")

    told["explored"] = together(explore, folder / "explored.txt")
    for name, harm in (("raised", fail), ("killed", die), ("diverged", diverge)):
        try:
            told[name] = together(harm, folder / f"{name}.txt")
        except TinygrowError as error:
            told[name] = str(error)
    told |= stages(folder / "stages")
    (folder / "told.json").write_text(json.dumps(told))


def fail() -> None:
    """Raise in the second process, while the first waits for it."""
    if processes().rank == 1:
        raise TinygrowError("the second has had enough")
    add_up(torch.ones(1))


def die() -> None:
    """Kill the second process, while the first waits for it."""
    if processes().rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    add_up(torch.ones(1))


def diverge() -> None:
    """Raise the same in both."""
    raise TinygrowError("both have had enough")


def stages(folder: Path) -> dict[str, object]:
    """Run growth and fine-tuning, whole and interrupted."""
    folder.mkdir()
    write_tiny_params(folder, RESNET, epochs_between=0.25)
    tree = YAML(typ="safe", pure=True).load((folder / "params.yaml").read_text())
    put(tree, "models.demo.processes", 2)
    put(tree, "models.demo.growth.extensions", 1)
    put(tree, "models.demo.growth.training.ema", 0.9)
    write_params(folder, tree)
    os.environ["GOMP_SPINCOUNT"] = "0"
    assert run(folder, "download", "digits").wait() == 0
    whole = folder.parent / "whole"
    shutil.copytree(folder, whole)
    told: dict[str, object] = {}
    for stage in ("grow", "finetune"):
        told[f"whole {stage}"] = run(whole, stage, "demo", "--save-every", "0").wait()
        told[stage] = [interrupted(folder, stage, signal.SIGTERM)]
        if stage == "grow":  # one is asked to stop by its launcher's death
            told[stage].append(interrupted(folder, stage, signal.SIGKILL))
        told[stage].append(run(folder, stage, "demo", "--save-every", "0").wait())
    told["left"] = [p for p in (folder / "workers.txt").read_text().split() if alive(int(p))]
    return told


def run(folder: Path, *arguments: str) -> Forked:
    def work() -> None:
        os.chdir(folder)
        command_line(arguments)

    return Forked(work, folder / "log.txt")


def interrupted(folder: Path, stage: str, number: int) -> int:
    """Signal to a stage when it has saved a few states more; wait until no worker is left."""
    begun = last_save(folder, stage)
    process = run(folder, stage, "demo", "--save-every", "0")
    end = time.monotonic() + PATIENCE
    while last_save(folder, stage) < begun + 3 and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(number)
    status = process.wait()
    while any(alive(int(p)) for p in (folder / "workers.txt").read_text().split()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return status


def last_save(folder: Path, stage: str) -> int:
    files = (folder / ".state").glob(f"{stage}-demo-*/*.pt")
    return max((int(file.stem) for file in files), default=0)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    main()
