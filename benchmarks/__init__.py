"""Measurements: each module runs as `python -m benchmarks.NAME` and prints what it found."""
