"""What all tests share: one thread a process, no display, GPU tests skipped with a word."""

import os
import signal

# Before anything imports torch: tests run in parallel, and sums keep one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# Where tests run in the background, shells have Ctrl-C ignored, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings

# Deadlines would be timed assertions.
settings.register_profile("tinygrow", deadline=None, max_examples=25)
settings.load_profile("tinygrow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device that PyTorch can use"))
