import io

import pytest

from pipeline import progress
from pipeline.progress import TerminalObserver


def test_elsewhere_than_on_a_terminal_only_lines_are_printed() -> None:
    stream = io.StringIO()
    observer = TerminalObserver(stream)
    observer.begin("training", 10, "images")
    observer.advance(5, loss=0.5)
    observer.say("epoch 1: loss 0.5")
    observer.end()
    assert stream.getvalue() == "epoch 1: loss 0.5\n"


def test_long_work_is_told_of_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    observer = TerminalObserver(stream)
    observer.begin("statistics", 400, "images")
    now = 20.0
    observer.advance(50)
    assert stream.getvalue() == ""
    now = 40.0
    observer.advance(50)
    assert stream.getvalue() == "statistics: 100 of 400 images, 2.5 a second, 120 s left\n"
    now = 50.0
    observer.advance(50)
    assert len(stream.getvalue().splitlines()) == 1


def test_bars_show_facts_and_vanish() -> None:
    stream = io.StringIO()
    observer = TerminalObserver(stream, bars=True)
    observer.begin("training", 10, "images")
    observer.advance(10, loss=0.123456)
    observer.begin("inner", 2, "batches")
    observer.say("a line")
    observer.close()
    text = stream.getvalue()
    assert "training: 100%" in text
    assert "a line\n" in text
    observer.end()  # one more than there were
    assert not observer._bars
