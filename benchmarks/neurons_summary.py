"""Ratios and intervals of `benchmarks.neurons`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.neurons_variants import PLAIN, VARIANTS

MEASURES = ("loss_fall", "evaluation_loss_fall", "bottleneck_fall")
AIM = 1.3
DRAWS = 10_000


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the ratio to the plain method of each variant and measure, and whether the aim holds.

    `neurons` is the share of plain's neurons that were added. A ratio is that of sums over the
    cells that both finished. Its interval: 10,000 bootstrap draws of cells, a cell's two values
    together.

    Args:
        rows: the cells.
    """
    values = {
        (r["variant"], r["seed"], r["epochs"], r["depth"]): [float(r[m]) for m in MEASURES]
        for r in rows
    }
    neurons = {(r["variant"], r["seed"], r["epochs"], r["depth"]): r["neurons"] for r in rows}
    found = {r["variant"] for r in rows}
    names = [name for name in VARIANTS if name in found]
    table = {}
    for name in names:
        cells = [k[1:] for k in values if k[0] == name and (PLAIN, *k[1:]) in values]
        ours = np.array([values[name, *cell] for cell in cells])
        plain = np.array([values[PLAIN, *cell] for cell in cells])
        added = sum(neurons[name, *cell] for cell in cells)
        share = added / sum(neurons[PLAIN, *cell] for cell in cells)
        table[name] = {"cells": len(cells), "neurons": round(share, 3)} | {
            measure: ratio(ours[:, i], plain[:, i]) for i, measure in enumerate(MEASURES)
        }
    # What finished only some of the cells is in the table, but no candidate.
    most = max((row["cells"] for row in table.values()), default=0)
    whole = [name for name in names if table[name]["cells"] == most]
    best = max(whole, key=lambda name: table[name]["loss_fall"]["ratio"], default=PLAIN)
    return {
        "variants": table,
        "best": best,
        "aim": AIM,
        "holds": bool(names) and table[best]["loss_fall"]["low"] >= AIM,
    }


def ratio(ours: np.ndarray, plain: np.ndarray) -> dict[str, float]:
    """Return the ratio of sums with the ends of its 95 % interval.

    Args:
        ours: (cells,) values of the variant.
        plain: (cells,) of the plain method in the same cells.
    """
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(ours), size=(DRAWS, len(ours)))
    ratios = ours[drawn].sum(1) / plain[drawn].sum(1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    value = float(ours.sum() / plain.sum())
    return {"ratio": round(value, 3), "low": round(float(low), 3), "high": round(float(high), 3)}
