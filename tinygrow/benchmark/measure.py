"""Honest timing of several contenders on the same images: in turns, warmed up, within a budget."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer

ROUNDS = 5
"""Turns of each contender, so that a slow moment of the machine hits all of them."""

Call = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to get logits from images.

    Attributes:
        engine: `onnxruntime` or `pytorch`.
        variant: precision of a product; how PyTorch runs.
        device: provider or device that it really runs on.
        prepare: from uint8 images (N, C, H, W) in the CPU's memory to a call that computes their
            logits and leaves them in the CPU's memory. May raise `TinygrowError`.
    """

    engine: str
    variant: str
    device: str
    prepare: Callable[[NDArray[np.uint8]], Call]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and on what to measure.

    Attributes:
        batches: images a call.
        runs: timed calls of each cell.
        warm_up: untimed calls before the first timed one; a quarter of them before later turns.
        seconds: for everything together, preparation included; 0: no limit.
    """

    batches: tuple[int, ...] = (1, 8, 64, 256)
    runs: int = 200
    warm_up: int = 20
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Wall-clock time of one contender at one batch size, copies to and from a device included.

    Attributes:
        engine: see `Contender`.
        variant: likewise.
        device: likewise.
        batch: images a call.
        runs: timed calls (n).
        wanted: timed calls that were planned; more than `runs` where the budget cut them.
        p50_ms: median, in milliseconds; None without a timed call.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        images_per_second: batch divided by the median.
        reason: why there is no timed call.
    """

    engine: str
    variant: str
    device: str
    batch: int
    runs: int
    wanted: int
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    images_per_second: float | None = None
    reason: str = ""

    @property
    def cut(self) -> bool:
        """Whether the budget ended it early."""
        return 0 < self.runs < self.wanted


def measure(
    contenders: Sequence[Contender],
    shape: tuple[int, int, int],
    plan: Plan,
    observer: Observer | None = None,
) -> list[Cell]:
    """Time every contender at every batch size, small batches first.

    Within a budget each batch size may use its share of what is left, and each turn its share of
    that; every cell gets at least one timed call a turn.

    Args:
        contenders: in the order of the result.
        shape: channels, height, width of the images, which are random and the same for all.
        plan: what to do.
        observer: told of progress.
    """
    observer = observer or Observer()
    ends = time.perf_counter() + plan.seconds if plan.seconds else None
    cells: list[Cell] = []
    with observer.work("benchmark", len(plan.batches) * len(contenders) * ROUNDS, "turns"):
        for done, batch in enumerate(sorted(plan.batches)):
            images = np.random.default_rng(batch).integers(0, 256, (batch, *shape), np.uint8)
            now = time.perf_counter()
            share = None if ends is None else now + (ends - now) / (len(plan.batches) - done)
            cells += _of_batch(contenders, images, plan, share, observer)
    return cells


def _of_batch(
    contenders: Sequence[Contender],
    images: NDArray[np.uint8],
    plan: Plan,
    ends: float | None,
    observer: Observer,
) -> list[Cell]:
    calls: dict[int, Call] = {}
    reasons: dict[int, str] = {}
    for i, contender in enumerate(contenders):
        try:
            calls[i] = contender.prepare(images)
            calls[i]()
        except TinygrowError as error:
            reasons[i] = " ".join(str(error).split())
            observer.advance(ROUNDS)
    times: dict[int, list[float]] = {i: [] for i in range(len(contenders))}
    turns = [(turn, i) for turn in range(ROUNDS) for i in calls]
    for done, (turn, i) in enumerate(turns):
        now = time.perf_counter()
        until = None if ends is None else now + (ends - now) / (len(turns) - done)
        runs = plan.runs * (turn + 1) // ROUNDS - plan.runs * turn // ROUNDS
        warm_up = plan.warm_up if turn == 0 else -(-plan.warm_up // 4)
        times[i] += _turn(calls[i], warm_up, runs, until)
        observer.advance()
    return [
        _cell(contender, len(images), times[i], plan.runs, reasons.get(i, ""))
        for i, contender in enumerate(contenders)
    ]


def _turn(call: Call, warm_up: int, runs: int, until: float | None) -> list[float]:
    """Return seconds of up to `runs` calls; fewer where the time is up, but one at least."""
    for done in range(warm_up):
        if done and until is not None and time.perf_counter() > until:
            break
        call()
    times: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        if until is not None and time.perf_counter() > until:
            break
    return times


def _cell(
    contender: Contender, batch: int, times: Sequence[float], wanted: int, reason: str
) -> Cell:
    empty = Cell(
        engine=contender.engine,
        variant=contender.variant,
        device=contender.device,
        batch=batch,
        runs=len(times),
        wanted=wanted,
        reason=reason,
    )
    if not times:
        return empty
    p50, p90, p99 = (float(q) for q in np.quantile(times, (0.5, 0.9, 0.99)))
    return replace(
        empty,
        p50_ms=1e3 * p50,
        p90_ms=1e3 * p90,
        p99_ms=1e3 * p99,
        images_per_second=batch / p50,
    )
