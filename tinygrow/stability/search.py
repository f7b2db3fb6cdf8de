"""The ladder: cheap rungs first, each sound, each leaving less to the next."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from tinygrow.observer import Observer
from tinygrow.settings.compress import StabilitySettings
from tinygrow.stability.exact import exact_bounds
from tinygrow.stability.found import Stability
from tinygrow.stability.interval import interval_bounds
from tinygrow.stability.isa import ask_at_once, ask_one_by_one
from tinygrow.stability.ledger import Ledger
from tinygrow.stability.program import Program
from tinygrow.stability.refute import look_at_data, search
from tinygrow.stability.tighten import Tightened, tighten


def find_stable(
    program: Program,
    images: torch.Tensor,
    settings: StabilitySettings,
    observer: Observer,
) -> Stability:
    """Find the units that are on one side of zero for every image of the domain.

    Args:
        program: of a folded network, from `program_of`.
        images: uint8 (N, C, H, W), of which the first `settings.data_images` are looked at; may
            be none.
        settings: the rungs to climb.
        observer: is told of each rung that takes time.
    """
    clock = _Clock(observer)
    notes = list(program.unsupported())
    with clock.rung("interval"):
        bounds = interval_bounds(program)
        ledger = Ledger(program, bounds)
        for layer in ledger.layers:
            ledger.settle_node(layer, bounds[layer.name], "interval")
    if settings.exact:
        with clock.rung("exact"):
            exact = exact_bounds(program)
            for name in (name for name in ledger.width if name in exact):
                ledger.settle(name, *exact[name], "exact")
    with clock.rung("data"):
        look_at_data(ledger, images[: settings.data_images])
    with clock.rung("pgd"):
        search(ledger, settings.pgd_steps, settings.pgd_starts)
    tightened = Tightened(bounds, (), {}, ())
    if settings.bounds == "crown" and ledger.any_open():
        with clock.rung("crown"):
            tightened = tighten(ledger)
        notes += tightened.notes
    if settings.milp != "off" and ledger.any_open():
        ask = ask_at_once if settings.milp == "isa" else ask_one_by_one
        with clock.rung("milp"):
            notes += ask(ledger, tightened.bounds, settings.milp_seconds).notes
    return Stability(
        layers=tuple(ledger.layer(name) for name in ledger.width),
        seconds=clock.seconds,
        notes=tuple(notes),
        witnesses=ledger.witnesses(),
        lines=tightened.lines,
        slopes=tightened.slopes,
    )


class _Clock:
    """Times the rungs and tells of them."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._seconds: dict[str, float] = {}

    @property
    def seconds(self) -> Mapping[str, float]:
        return dict(self._seconds)

    @contextmanager
    def rung(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        with self._observer.work(f"stable units: {name}", 1, "rungs"):
            yield
            self._observer.advance()
        self._seconds[name] = time.perf_counter() - started
