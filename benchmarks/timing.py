"""Wall time, its spread, and what it was measured on: the same for every benchmark."""

import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from platform import python_version
from typing import Any

import torch

import tinygrow
from tinygrow.machine import processor


class Timer:
    """Collects wall times by name; on a GPU, of work that is done rather than queued.

    Args:
        device: whose work is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._device = device

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block and add its seconds to those of `name`."""
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def figures(values: Sequence[float]) -> dict[str, float]:
    """Return median, extremes and number of values, for JSON."""
    return {
        "median": round(statistics.median(values), 6),
        "min": round(min(values), 6),
        "max": round(max(values), 6),
        "n": len(values),
    }


def spread(values: Sequence[float]) -> str:
    """Return `median (smallest to largest)` with three digits of the median."""
    median = statistics.median(values)
    digits = 3 if median <= 0 else max(0, min(6, 2 - math.floor(math.log10(median))))
    return f"{median:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def surroundings(device: torch.device) -> dict[str, Any]:
    """Return what the numbers depend on besides the code; to be asked before measuring.

    The load is of the last minute: what else kept the machine busy.
    """
    name = processor() if device.type == "cpu" else torch.cuda.get_device_name(device)
    return {
        "device": device.type,
        "machine": name,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "python": python_version(),
        "torch": version("torch"),
        "tinygrow": tinygrow.__version__,
    }
