"""The report as lines for a terminal."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

_WIDTH = 100
_SHOWN = 12
_LONG = 24  # segments from which on equal ones are not all told
_HEADER = ("", "layers", "paths", "depths", "d", "m", "identity", "bound/P", "rank d, m")


def report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a report from `describe`."""
    for output in report["outputs"]:
        told = "" if len(report["outputs"]) == 1 else f", {output['output']}"
        yield f"{report['model']}{told} (read by {report['origin']})"
        yield from _whole(output["whole"])
        yield ""
        yield from _segments(output["segments"])
        yield ""
        yield from _learning_rate(output["learning_rate"])
        for advice in output["advice"]:
            yield ""
            place = "" if advice["segment"] is None else f" (segment {advice['segment']})"
            yield from _wrapped(f"{advice['level'].upper()}{place}: {advice['text']}")
            if advice["evidence"]:
                yield from _wrapped(f"evidence: {advice['evidence']}", "  ")
    yield ""
    yield from _wrapped(
        "d, m: effective depth and width. bound/P: mean of 1 - f^depth, of unlike inputs; it ranks"
        " speed at one small learning rate, and is weak evidence at tuned ones. rank: percentile of"
        " d and m among all DAGs of as many nodes and layers."
    )


def _whole(whole: Mapping[str, Any]) -> Iterator[str]:
    bound = "-" if whole["bound_per_path"] is None else f"{whole['bound_per_path']:.3f}"
    means = f"d {_number(whole, 0)}, m {_number(whole, 1)}, bound/P {bound}"
    yield f"  {whole_told(whole)}; {means}"
    if len(whole["depths"]) > 1:
        yield from _wrapped(f"paths by depth: {depths_told(whole['depths'], 40)}", "  ")


def _segments(segments: list[Mapping[str, Any]]) -> Iterator[str]:
    rows = [_HEADER]
    for number, segment in enumerate(segments, 1):
        rank = "-"
        if segment["percentile_depth"] is not None:
            rank = f"{segment['percentile_depth']:.0f}, {segment['percentile_width']:.0f}"
        marks = "".join(f" {kind}" for kind in segment["foreign_merges"])
        rows.append(
            (
                str(number),
                str(len(segment["layers"])),
                paths_told(segment),
                depths_told(segment["depths"], 4),
                _number(segment, 0),
                _number(segment, 1),
                "yes" if segment["identity_path"] else "no",
                f"{segment['bound_per_path']:.3f}",
                rank + (f"  outside of the theory:{marks}" if marks else ""),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER) - 1)]
    yield _row(rows[0], widths)
    for number, (row, segment) in enumerate(zip(rows[1:], segments, strict=True), 1):
        alike = len(rows) > _LONG and rows[number - 1][1:] == row[1:]
        again = alike and number + 1 < len(rows) and rows[number + 1][1:] == row[1:]
        if not again:  # of many equal segments in a row the first and the last are told
            yield _row(row, widths)
            yield f"  {'':>{widths[0]}}    {segment['from']} -> {segment['to']}"


def _row(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
    return f"  {'  '.join([*cells, row[-1]])}".rstrip()


def _learning_rate(rate: Mapping[str, Any]) -> Iterator[str]:
    if not rate["applies"]:
        yield from _wrapped(f"learning rate by depth: {rate['why_not']}.")
    for chain in rate["chains"]:
        yield from _wrapped(
            f"learning rate by depth (segment {chain['segment']}, {chain['hidden']} hidden"
            f" layer{'s' if chain['hidden'] > 1 else ''}): {chain['against_one']:.3g} of that of"
            f" the same chain with one; times {chain['after_insertion']:.3g} if a layer is"
            " inserted; times q/q' if a kernel of q becomes q'. A start for a short sweep, no more."
        )
    yield from _wrapped(f"{rate['neurons']}.")


def whole_told(whole: Mapping[str, Any]) -> str:
    """Return layers, paths and their depths in words."""
    layers = f"{whole['layers']} layer{'' if whole['layers'] == 1 else 's'}"
    paths = f"{paths_told(whole)} path{'' if whole['paths'] == '1' else 's'}"
    low, high = whole["shortest"], whole["longest"]
    return f"{layers}, {paths} of depth {low if low == high else f'{low} to {high}'}"


def paths_told(measures: Mapping[str, Any]) -> str:
    """Return a number of paths: in full, or as a power of two where it is long."""
    if len(measures["paths"]) <= 6:
        return str(measures["paths"])
    return f"2^{measures['log2_paths']:.4g}"


def depths_told(depths: Mapping[str, str], most: int = _SHOWN) -> str:
    """Return `depth:paths` pairs, the middle left out where there are many."""
    pairs = [f"{t}:{c if len(c) <= 6 else f'{int(c):.1e}'}" for t, c in depths.items()]
    if len(pairs) > most:
        pairs = [*pairs[: most // 2], "..", *pairs[-(most - most // 2 - 1) :]]
    return " ".join(pairs)


def _number(measures: Mapping[str, Any], part: int) -> str:
    value = measures[("effective_depth", "effective_width")[part]]
    return "> 1e308" if value is None else f"{value:.4g}"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )
