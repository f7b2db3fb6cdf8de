"""How long one call of a model takes: a small honest measure for sidecar and report."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tinygrow.deploy.contract import INPUT, OUTPUT
from tinygrow.deploy.sessions import open_session, provider_of

WARM_UP = 5
MIN_RUNS = 10
MAX_RUNS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Wall-clock time of one `session.run`, copies to and from the device included.

    Attributes:
        provider: what the session says it ran on.
        batch: images a call.
        median_ms: median, in milliseconds.
        p90_ms: 90th percentile, in milliseconds.
        runs: timed calls (n), after `warm_up` untimed ones.
        warm_up: untimed calls before.
        images_per_second: batch divided by the median.
    """

    provider: str
    batch: int
    median_ms: float
    p90_ms: float
    runs: int
    warm_up: int
    images_per_second: float


def measure_latency(
    path: Path,
    shape: tuple[int, int, int],
    batches: Sequence[int] = (1, 64),
    provider: str = "cpu",
    seconds: float = 2.0,
) -> list[Latency]:
    """Time a model on random images.

    Args:
        path: of the .onnx file.
        shape: channels, height, width.
        batches: images a call.
        provider: as for `open_session`.
        seconds: at most this long for a batch size, once `MIN_RUNS` calls are timed.
    """
    session = open_session(path, provider)
    return [_time(session, shape, batch, seconds) for batch in batches]


def _time(
    session: ort.InferenceSession, shape: tuple[int, int, int], batch: int, seconds: float
) -> Latency:
    feed = {INPUT: np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)}
    for _ in range(WARM_UP):
        session.run([OUTPUT], feed)
    times: list[float] = []
    while len(times) < MIN_RUNS or (sum(times) < seconds and len(times) < MAX_RUNS):
        start = time.perf_counter()
        session.run([OUTPUT], feed)
        times.append(time.perf_counter() - start)
    median = float(np.median(times))
    return Latency(
        provider=provider_of(session),
        batch=batch,
        median_ms=1e3 * median,
        p90_ms=1e3 * float(np.quantile(times, 0.9)),
        runs=len(times),
        warm_up=WARM_UP,
        images_per_second=batch / median,
    )
