"""NAS-Bench-201's cell space: what the filter keeps, and what that is worth, as plain data."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrow.connectivity import tables
from tinygrow.connectivity.cell_filter import RELEASED, Bounds, around_the_middle, most_layers
from tinygrow.connectivity.search import Table, best_by_scored, best_of_drawn
from tinygrow.connectivity.space import Cells, every_dag, nas_bench_201

SCORED = (1, 5, 10, 25, 50, 100)
"""Cells scored at which the search is told of."""
DRAWS = 100
TOP = 100
_SHARES = {"full radius": Fraction(1), "3/4 radius": Fraction(3, 4), "1/4 radius": Fraction(1, 4)}
HALF, PROGRAM, LAYERS, ALL = "half radius", "released program", "most convolutions", "no filter"


def describe_space(folder: Path | None, *, repeats: int = 200, seed: int = 0) -> dict[str, Any]:
    """Return counts, and where the tables are installed what the filter does to accuracy.

    Args:
        folder: of the tables, from `tables.folder`; None where there are none.
        repeats: of each random search.
        seed: of its draws.
    """
    keys, cells = nas_bench_201()
    half = around_the_middle(cells)
    pairs, _ = cells.measures()
    report: dict[str, Any] = {
        "cells": len(keys),
        "dead": int((cells.total == 0).sum()),
        "without_layer": int(((cells.total > 0) & (cells.live_layers == 0)).sum()),
        "pairs": len(pairs),
        "bounds": {HALF: _told(half), PROGRAM: _told(RELEASED)},
        "kept": _kept(cells, half),
        "three_operations": _three_operations(),
        "tables": {},
    }
    if folder is not None:
        rules = _rules(cells, half)
        for name, stem in tables.DATA_SETS.items():
            runs = tables.validation_accuracies(folder / f"{stem}.pkl", keys)
            report["tables"][name] = {
                "runs": int(runs.shape[1]),
                "rules": _judged(rules, np.nanmean(runs, axis=1)),
                "search": _searched(rules, Table.of_runs(runs), repeats, seed),
            }
        report["repeats"] = repeats
    return report


def space_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of that report for a terminal."""
    total = report["cells"]
    yield f"NAS-Bench-201: {total:,} cells of 4 nodes and 6 edges"
    yield (
        f"  {report['dead']:,} have no path, {report['without_layer']:,} a path but no convolution"
    )
    yield f"  {report['pairs']} pairs of effective depth and width"
    yield "cells that a rule keeps"
    for name, count in report["kept"].items():
        line = f"  {name:18} {count:6,}  {100 * count / total:5.1f} %"
        yield f"{line}  {report['bounds'].get(name, '')}".rstrip()
    three = report["three_operations"]
    yield (
        f"of the {three['cells']} cells of none, skip and one layer: {three['dead']} dead,"
        f" {three['without_layer']} without layer; {HALF} keeps {three[HALF]}, {PROGRAM}"
        f" {three[PROGRAM]}"
    )
    if not report["tables"]:
        yield (
            f"SKIPPED: accuracies, for {tables.PACKAGE} is not installed"
            f" (pip install {tables.PACKAGE}==0.2.0)"
        )
        return
    for name, table in report["tables"].items():
        yield f"{name}, validation accuracy in %, mean of up to {table['runs']} runs a cell"
        yield f"  {'':18}   kept    mean  top {TOP} kept  worst tenth kept"
        for rule, judged in table["rules"].items():
            kept, mean, top, worst = (judged[key] for key in ("kept", "mean", "top", "worst"))
            yield f"  {rule:18} {kept:5.1f} %  {mean:6.2f}  {top:8.0f} %  {worst:14.1f} %"
        yield (
            f"  random search, {report['repeats']} repeats: best by its first run, told by its"
            " others (mean ± std)"
        )
        yield f"  {'scored cells':18} {''.join(f'{n:>15}' for n in SCORED)}"
        for rule, found in table["search"].items():
            cells = "".join(f"{m:>8.2f} ± {s:<4.2f}" for m, s in found["by_scored"])
            yield f"  {rule:18} {cells}"
        for rule, found in table["search"].items():
            mean, deviation = found["of_drawn"]
            yield (
                f"  {DRAWS} drawn, {rule}: {found['scored']:.1f} scored, best {mean:.2f} ±"
                f" {deviation:.2f}"
            )


def _kept(cells: Cells, half: Bounds) -> dict[str, int]:
    kept = {
        name: int(around_the_middle(cells, share).keep(cells).sum())
        for name, share in _SHARES.items()
    }
    kept[HALF] = int(half.keep(cells).sum())
    kept[PROGRAM] = int(RELEASED.keep(cells).sum())
    return dict(sorted(kept.items(), key=lambda item: -item[1]))


def _three_operations() -> dict[str, int]:
    cells = every_dag(4)
    return {
        "cells": len(cells.codes),
        "dead": int((cells.total == 0).sum()),
        "without_layer": int(((cells.total > 0) & (cells.live_layers == 0)).sum()),
        HALF: int(around_the_middle(cells).keep(cells).sum()),
        PROGRAM: int(RELEASED.keep(cells).sum()),
    }


def _rules(cells: Cells, half: Bounds) -> dict[str, NDArray[np.float64]]:
    """Return the chance of each cell to be kept, by each rule."""
    kept = half.keep(cells)
    return {
        ALL: np.ones(len(kept)),
        HALF: kept.astype(float),
        PROGRAM: RELEASED.keep(cells).astype(float),
        LAYERS: most_layers(cells, int(kept.sum())),
    }


def _judged(
    rules: Mapping[str, NDArray[np.float64]], accuracy: NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    order = np.argsort(-accuracy, kind="stable")
    worst = order[-(len(order) // 10) :]
    return {
        name: {
            "kept": 100 * float(chance.mean()),
            "mean": float((accuracy * chance).sum() / chance.sum()),
            "top": 100 * float(chance[order[:TOP]].mean()),
            "worst": 100 * float(chance[worst].mean()),
        }
        for name, chance in rules.items()
    }


def _searched(
    rules: Mapping[str, NDArray[np.float64]], table: Table, repeats: int, seed: int
) -> dict[str, dict[str, Any]]:
    found = {}
    for name, chance in rules.items():
        generator = np.random.default_rng(seed)
        # Of equals that share the last places a fixed part takes them.
        kept = generator.random(len(chance)) < chance
        by_scored = best_by_scored(
            table, kept, budget=max(SCORED), repeats=repeats, generator=generator
        )
        best, scored = best_of_drawn(table, kept, draws=DRAWS, repeats=repeats, generator=generator)
        found[name] = {
            "by_scored": [_spread(by_scored[:, n - 1]) for n in SCORED],
            "of_drawn": _spread(best),
            "scored": float(scored.mean()),
        }
    return found


def _spread(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(np.nanmean(values)), float(np.nanstd(values, ddof=1))


def _told(bounds: Bounds) -> str:
    d, m = bounds.depth, bounds.width
    return f"d {float(d[0]):.4g} to {float(d[1]):.4g}, m {float(m[0]):.4g} to {float(m[1]):.4g}"
