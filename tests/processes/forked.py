"""Processes that are forked from one that has loaded everything: PyTorch takes seconds to load."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import cli, workers


class Forked:
    """A forked process, with what `pipeline.workers` asks of a `subprocess.Popen`."""

    def __init__(self, work: Callable[[], object], log: Path) -> None:
        self._status: int | None = None
        self.pid = os.fork()
        if not self.pid:
            _work(work, log)

    def poll(self) -> int | None:
        if self._status is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if done else None
        return self._status

    def wait(self) -> int:
        while (status := self.poll()) is None:
            time.sleep(0.002)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _work(work: Callable[[], object], log: Path) -> None:
    status = 70
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
        work()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def command_line(arguments: Sequence[str]) -> None:
    """Be `python -m pipeline`, whose workers are forked as well, and write down their numbers."""

    def start(command: Sequence[str], environment: dict[str, str]) -> Forked:
        def work() -> None:
            os.environ.update(environment)
            command_line(command[3:])  # behind `python -m pipeline`

        process = Forked(work, Path("log.txt"))
        with Path("workers.txt").open("a") as file:
            print(process.pid, file=file)
        return process

    workers._start = start  # type: ignore[assignment]
    sys.argv = ["tinygrow", *arguments]
    cli.main()


def together(work: Callable[[], object], log: Path, count: int = 2) -> int:
    """Let `count` processes do `work`, and return what `workers.run` returns of them."""

    def start(_: Sequence[str], environment: dict[str, str]) -> Forked:
        def joined_work() -> None:
            os.environ.update(environment)
            with workers.member(workers.Observer()):
                work()

        return Forked(joined_work, log)

    before, workers._start = workers._start, start  # type: ignore[assignment]
    try:
        return workers.run([], count)
    finally:
        workers._start = before
