import pytest
import torch

from benchmarks import timing


def test_a_timer_keeps_an_entry_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 3.5, 10.0, 10.25, 20.0, 21.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(now))
    timer = timing.Timer(torch.device("cpu"))
    for name in ("solve", "search", "solve"):
        with timer.part(name):
            pass
    assert timer.seconds == {"solve": [2.5, 1.0], "search": [0.25]}


def test_figures() -> None:
    assert timing.figures([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "n": 3}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 2.0, 30.0], "2.00 (1.00 to 30.00)"),
        ([0.01234], "0.0123 (0.0123 to 0.0123)"),
        ([1234.5, 1233.0, 1240.0], "1234 (1233 to 1240)"),
        ([0.0], "0.000 (0.000 to 0.000)"),
    ],
)
def test_spread_shows_three_digits_of_the_median(values: list[float], text: str) -> None:
    assert timing.spread(values) == text


def test_surroundings_name_what_numbers_depend_on() -> None:
    around = timing.surroundings(torch.device("cpu"))
    assert around["device"] == "cpu" and around["threads"] == torch.get_num_threads()
    assert {"machine", "load", "python", "torch", "tinygrow"} < set(around)
