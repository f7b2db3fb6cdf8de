"""The picture of `benchmarks.neurons`: `python -m benchmarks.neurons_picture RESULTS OUT`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.neurons import finished
from benchmarks.neurons_summary import AIM, summarise
from benchmarks.neurons_variants import PLAIN, VARIANTS
from tinygrow.files import write_bytes, write_json, write_text
from tinygrow.report.style import BLUE, INK, ORANGE, house_style, new_figure, to_png, to_svg

PANELS = {
    "loss_fall": "Fall of the held-out loss",
    "bottleneck_fall": "Fall of the held-out bottleneck",
}


def draw(table: Mapping[str, Mapping[str, Any]]) -> tuple[str, bytes]:
    """Draw each variant's ratio to the plain method with its 95 % interval, as SVG and PNG.

    Args:
        table: `variants` of `summarise`.
    """
    names = [name for name in table if name != PLAIN]
    with house_style():
        figure = new_figure(11.0, 1.6 + 0.45 * len(names))
        axes = figure.subplots(1, len(PANELS), sharey=True)
        for ax, (measure, title) in zip(axes, PANELS.items(), strict=True):
            ax.axvline(1.0, color=INK, linewidth=0.8)
            if measure == "loss_fall":
                ax.axvline(AIM, color=ORANGE, linewidth=0.8, linestyle="--")
            for place, name in enumerate(names):
                cell = table[name][measure]
                ax.plot([cell["low"], cell["high"]], [-place, -place], color=BLUE, linewidth=3)
                ax.plot([cell["ratio"]], [-place], "o", color=BLUE, markersize=7)
            ax.set_title(title)
            ax.set_xlabel("ratio to the paper's method, 95 % interval")
        labels = [f"{VARIANTS[n].meaning} (n = {table[n]['cells']})" for n in names]
        axes[0].set_yticks([-i for i in range(len(names))], labels, color=INK)
        axes[0].margins(y=0.15)
        return to_svg(figure, "neurons", "Worth of new neurons by variant"), to_png(figure)


def markdown(table: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of ratios with intervals."""
    lines = [
        "| variant | cells | neurons | loss, as training sees it | loss, evaluation | bottleneck |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in table.items():
        ratios = (row[m] for m in ("loss_fall", "evaluation_loss_fall", "bottleneck_fall"))
        cells = " | ".join(f"{c['ratio']:.2f} ({c['low']:.2f} to {c['high']:.2f})" for c in ratios)
        head = f"`{name}`: {VARIANTS[name].meaning} | {row['cells']} | {row['neurons']:.2f}"
        lines.append(f"| {head} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write picture, table and summary of a finished comparison."""
    results, out = map(Path, sys.argv[1:3])
    summary = summarise(finished(results / "cells.jsonl"))
    svg, png = draw(summary["variants"])
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "ratios.svg", svg)
    write_bytes(out / "ratios.png", png)
    write_text(out / "ratios.md", markdown(summary["variants"]))
    write_json(out / "ratios.json", summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
