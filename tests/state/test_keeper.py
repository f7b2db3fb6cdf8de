from pathlib import Path

import pytest

from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.state.folder import StateFolder
from tinygrow.state.keeper import Keeper, StateKeeper
from tinygrow.state.stop import Stop, StopRequest


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Counts to 5; a state is a number."""

    def __init__(self) -> None:
        self.number = 0
        self.captures = 0

    def capture(self) -> dict[str, object]:
        self.captures += 1
        return {"progress": f"number {self.number}", "number": self.number}


def kept(path: Path) -> object:
    with StateFolder(path, {}) as states:
        state = states.load(Observer())
    return None if state is None else state["number"]


def test_a_keeper_that_keeps_nothing_makes_no_state() -> None:
    work, keeper = Work(), Keeper()
    assert keeper.restore() is None
    keeper.step(work.capture)
    with keeper.held(work.capture):
        pass
    assert work.captures == 0


def test_states_are_made_and_saved_when_it_is_time(tmp_path: Path) -> None:
    clock, work = Clock(), Work()
    with StateFolder(tmp_path / "s", {}) as states:
        keeper = StateKeeper(states, seconds=10, clock=clock)
        for work.number, clock.now in enumerate((1, 9, 11, 12, 20, 21.5)):
            keeper.step(work.capture)
        assert work.captures == 2  # at 11 and at 21.5
        clock.now, work.number = 40, 7
        with keeper.held(work.capture):
            work.number = 8
    assert kept(tmp_path / "s") == 7


def test_a_request_waits_for_the_next_step(tmp_path: Path) -> None:
    work, request = Work(), StopRequest()
    with StateFolder(tmp_path / "s", {}) as states:
        keeper = StateKeeper(states, seconds=1e9, stop=request)
        with pytest.raises(Stop) as caught, keeper.running():
            keeper.step(work.capture)
            request.ask("tired", 130)  # between two points: nothing happens
            work.number = 3
            keeper.step(work.capture)
    assert (caught.value.reason, caught.value.status) == ("tired", 130)
    assert caught.value.saved == "number 3"
    assert kept(tmp_path / "s") == 3


def test_a_held_stretch_is_left_at_once_with_the_state_of_its_beginning(tmp_path: Path) -> None:
    work, request, after = Work(), StopRequest(), []
    with StateFolder(tmp_path / "s", {}) as states:
        keeper = StateKeeper(states, seconds=1e9, stop=request)
        with pytest.raises(Stop) as caught, keeper.running(), keeper.held(work.capture):
            work.number = 4
            request.ask("tired", 143)
            after.append(work.number)
    assert not after
    assert caught.value.saved == "number 0"
    assert kept(tmp_path / "s") == 0


def test_a_request_before_anything_could_be_lost_is_met_at_once(tmp_path: Path) -> None:
    request = StopRequest()
    with StateFolder(tmp_path / "s", {}) as states:
        keeper = StateKeeper(states, seconds=1e9, stop=request)
        with pytest.raises(Stop) as caught, keeper.running():
            request.ask("tired", 130)
    assert caught.value.saved is None
    assert not (tmp_path / "s").exists()


def test_who_insists_is_not_kept_waiting(tmp_path: Path) -> None:
    work, request = Work(), StopRequest()
    with StateFolder(tmp_path / "s", {}) as states:
        keeper = StateKeeper(states, seconds=0, stop=request)
        with pytest.raises(Stop) as caught, keeper.running():
            keeper.step(work.capture)  # saved: seconds is 0
            work.number = 1
            request.ask("tired", 130)
            request.ask("more tired", 143)  # one of several signals does not insist
            request.ask("tired", 130, insist=True)
    assert caught.value.saved == "number 0"
    assert kept(tmp_path / "s") == 0


def test_a_request_that_came_before_a_held_stretch_stops_there(tmp_path: Path) -> None:
    work, request = Work(), StopRequest()
    with StateFolder(tmp_path / "s", {}) as states:
        keeper = StateKeeper(states, seconds=1e9, stop=request)
        with pytest.raises(Stop), keeper.running():
            keeper.step(work.capture)
            work.number = 2
            request.ask("tired", 130)
            with keeper.held(work.capture):
                work.number = 3
    assert work.number == 2
    assert kept(tmp_path / "s") == 2


def test_errors_are_no_reason_to_save(tmp_path: Path) -> None:
    work = Work()
    with StateFolder(tmp_path / "s", {}) as states:
        keeper = StateKeeper(states, seconds=1e9)
        with pytest.raises(ZeroDivisionError), keeper.running(), keeper.held(work.capture):
            raise ZeroDivisionError
    assert kept(tmp_path / "s") is None


def test_the_state_of_the_end_is_kept(tmp_path: Path) -> None:
    work = Work()
    with StateFolder(tmp_path / "s", {}) as states:
        keeper = StateKeeper(states, seconds=1e9)
        assert keeper.folder == tmp_path / "s"
        with keeper.running():
            keeper.step(work.capture)
            work.number = 5
            keeper.done(work.capture)
    assert kept(tmp_path / "s") == 5


def test_a_request_while_results_are_written_is_met_behind_them(tmp_path: Path) -> None:
    work, request, written = Work(), StopRequest(), []
    with StateFolder(tmp_path / "s", {}) as states:
        keeper = StateKeeper(states, seconds=1e9, stop=request)
        with pytest.raises(Stop) as caught, keeper.running():
            keeper.done(work.capture)
            request.ask("tired", 130)
            written.append(True)
    assert written
    assert caught.value.saved == "number 0"
    assert kept(tmp_path / "s") == 0


def test_a_save_that_fails_is_no_end_of_the_work_unless_it_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lines(Observer):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, line: str) -> None:
            self.lines.append(line)

    def full(*_: object) -> None:
        raise TinygrowError("cannot write it: no space; free disk space")

    clock, work, request, observer = Clock(), Work(), StopRequest(), Lines()
    with StateFolder(tmp_path / "s", {}) as states:
        keeper = StateKeeper(states, seconds=10, stop=request, observer=observer, clock=clock)
        clock.now = 11
        keeper.step(work.capture)
        monkeypatch.setattr(states, "save", full)
        clock.now = 22
        keeper.step(work.capture)
        clock.now = 23
        keeper.step(work.capture)  # not tried again before its time
        assert len(observer.lines) == 1 and "work goes on" in observer.lines[0]
        work.number = 4
        with pytest.raises(TinygrowError, match="no space"), keeper.running():
            request.ask("tired", 130)
            keeper.step(work.capture)
    assert kept(tmp_path / "s") == 0


def test_the_restored_state_can_be_asked_for_again(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "s", {}) as states:
        states.save({"progress": "number 9", "number": 9})
        keeper = StateKeeper(states, seconds=1e9)
        first = keeper.restore()
        assert first is not None and first["number"] == 9
        assert keeper.restore() is first


def test_a_request_while_nothing_new_is_done_reports_the_restored_state(tmp_path: Path) -> None:
    request = StopRequest()
    with StateFolder(tmp_path / "s", {}) as states:
        states.save({"progress": "number 9", "number": 9})
        keeper = StateKeeper(states, seconds=1e9, stop=request)
        with pytest.raises(Stop) as caught, keeper.running():
            keeper.restore()
            request.ask("tired", 130)  # during the calibration, say
    assert caught.value.saved == "number 9"
    assert kept(tmp_path / "s") == 9
