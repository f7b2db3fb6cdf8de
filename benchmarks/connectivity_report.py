"""Table and picture of the runs of `benchmarks.connectivity`."""

import json
from pathlib import Path


def read_runs(path):
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_report(folders, target):
    raise NotImplementedError
