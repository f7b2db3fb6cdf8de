"""Do singular values say what a neuron buys? `python -m benchmarks.neurons_prediction DATA OUT`.

In each cell of `benchmarks.neurons`, whose checkpoints are read from OUT, the closed form (of the
whole desired update) proposes neurons. The first-order gain (1/n) <V, omega_k h_k> of each, the
mean of its two signs, is measured with BatchNorm as it is and made transparent, on the images that
gave the neurons and on held-out ones. With a transparent norm theory has it lambda_k^2 / 2 on the
former (tiny.md 1.5 c). The last line of stdout is one JSON object: medians over cells of the
correlation of gain and lambda^2 over a cell's neurons, and of the ratio of their sums.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.neurons import DEPTHS, Cell, Judge, Setting, setting_of
from tinygrow.growth.amplitude import normalize
from tinygrow.growth.neurons.proposal import Request
from tinygrow.growth.neurons.tiny import propose
from tinygrow.growth.signs import both_signs, first_order_gains
from tinygrow.growth.surgery import as_units
from tinygrow.growth.transparent import transparent


def predict(setting: Setting, cell: Cell) -> dict[str, Any]:
    """Return lambda^2 and the gains of one cell's neurons."""
    judge = Judge(setting, cell)
    settings = setting.settings
    settings = replace(settings, solver=replace(settings.solver, projection=False))
    judge.samples.calls = 0
    request = Request(
        network=judge.network,
        site=judge.site,
        count=judge.count,
        sample=judge.samples,
        available=len(setting.train),
        settings=settings,
        generator=torch.Generator(),
    )
    neurons = propose(request).neurons
    judge.samples.calls = 2
    own = judge.samples(settings.statistics.min_images)
    raw = as_units(neurons, *judge.site.layers(judge.network))
    row: dict[str, Any] = {"seed": cell.seed, "epochs": cell.epochs, "depth": cell.depth}
    row["squares"] = neurons.singular_values.square().tolist()
    scaled = normalize(judge.network, judge.site, raw, own[0])
    for name, units in {
        "norm": scaled,
        "transparent": transparent(judge.network, judge.site, raw, own),
    }.items():
        pairs = both_signs(units)
        for where, images in {"own": own, "held_out": judge.held_out}.items():
            gains = first_order_gains(judge.network, judge.site, pairs, images)
            row[f"{name}_{where}"] = gains.mean(0).reshape(2, -1).mean(0).tolist()
    return row


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians over cells."""
    result: dict[str, Any] = {"cells": len(rows)}
    for name in ("norm_own", "norm_held_out", "transparent_own", "transparent_held_out"):
        correlations = [float(np.corrcoef(r["squares"], r[name])[0, 1]) for r in rows]
        result[name] = {"correlation": round(statistics.median(correlations), 3)}
        if name.startswith("transparent"):
            shares = [2 * sum(r[name]) / sum(r["squares"]) for r in rows]
            result[name]["share_of_half_lambda_squared"] = round(statistics.median(shares), 3)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all cells and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path, help="of benchmarks.neurons")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 4, 12])
    options = parser.parse_args(arguments)
    setting = setting_of(options.data, options.folder, tuple(options.epochs))
    rows = [
        predict(setting, Cell(seed=seed, epochs=epochs, depth=depth))
        for seed in options.seeds
        for epochs in options.epochs
        for depth in DEPTHS
    ]
    (options.folder / "prediction.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    print(json.dumps(summary(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
