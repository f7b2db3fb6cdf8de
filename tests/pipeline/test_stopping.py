import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import stopping
from tinygrow.state.stop import Stop

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("number", "status", "reason"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "terminal closed"),
    ],
)
def test_signals_ask_to_stop_and_handlers_come_back(
    number: signal.Signals, status: int, reason: str
) -> None:
    def own(*_: object) -> None:
        pytest.fail("the handler from before was called")

    before = signal.signal(number, own)  # it may be ignored where the tests run
    try:
        with stopping.requests() as request:
            request.immediate = False
            signal.raise_signal(number)
            assert request.pending is not None
            assert (request.pending.status, request.pending.reason) == (status, reason)
            signal.raise_signal(signal.SIGTERM)  # another one does not insist
            signal.raise_signal(number)  # nor the same one at once
            assert request.pending.status == status
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


def test_a_second_ctrl_c_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    with stopping.requests() as request:
        request.immediate = False
        signal.raise_signal(signal.SIGINT)
        now[0] = 10.1
        signal.raise_signal(signal.SIGINT)  # the same press, heard twice
        now[0] = 12.0
        with pytest.raises(Stop):
            signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.requests() as request:
            signal.raise_signal(signal.SIGHUP)
            assert request.pending is None
    finally:
        signal.signal(signal.SIGHUP, before)


WORK = """
import sys, time
from pipeline import stopping
from tinygrow.state.stop import Stop
stopping.SECONDS_BETWEEN_LOOKS = 0.02
try:
    started_by = stopping.parents()
    print("ready", flush=True)
    time.sleep(float(sys.argv[1]))  # as long as imports may take
    with stopping.requests(started_by) as request:
        time.sleep(60)
except Stop as stop:
    print(stop.reason, flush=True)
    sys.exit(stop.status)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:])
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes by /proc")
@pytest.mark.parametrize("shell", [True, False], ids=["shell between", "no shell"])
@pytest.mark.parametrize("imports", ["0", "0.7"], ids=["at work", "while importing"])
def test_the_death_of_dvc_is_noticed(shell: bool, imports: str) -> None:
    command = [sys.executable, "-c", WORK, imports]
    if shell:  # one that stays, as it has something to do afterwards
        command = ["sh", "-c", f'"{sys.executable}" -c "$WORK" {imports}; echo status $?']
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *command],
        cwd=ROOT,
        env={**os.environ, "DVC_STAGE": "grow@demo", "WORK": WORK},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        told = parent.communicate(timeout=60)[0]  # ends when the orphan has closed its output
    assert told.splitlines()[0] == "the DVC that started it is gone"
    assert not shell or told.splitlines()[1] == "status 143"


def test_the_death_of_dvc_is_told_again_until_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    told, kill = [], signal.pthread_kill

    def lost(thread: int, number: int) -> None:  # as just before a system call that blocks
        told.append(thread)
        if len(told) == 3:
            kill(thread, number)

    monkeypatch.setenv("DVC_STAGE", "grow@demo")
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(stopping.signal, "pthread_kill", lost)
    gone = [0]  # no process has that number
    with pytest.raises(Stop, match="the DVC that started it is gone"), stopping.requests(gone):
        threading.Event().wait(60)
    assert told == [threading.main_thread().ident] * 3


def test_without_dvc_nobody_minds_an_orphan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(stopping, "_watch", lambda *_: pytest.fail("watches"))
    with stopping.requests():
        pass
