"""The report on a network's wiring as plain data, which pages, pictures and terminals tell from."""

import math
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from tinygrow.connectivity.advice import advise
from tinygrow.connectivity.dag import Dag
from tinygrow.connectivity.graph import Graph
from tinygrow.connectivity.layout import layout
from tinygrow.connectivity.learning_rate import rate_rules, why_no_rule
from tinygrow.connectivity.paths import Paths
from tinygrow.connectivity.segments import Segment, Wiring, wirings

NEURONS = "adding neurons changes no path: the learning rate stays, and so does this report"


def describe(name: str, graph: Graph) -> dict[str, Any]:
    """Return the report, ready for JSON. Large integers are text, fractions both ways.

    Args:
        name: of the network.
        graph: from a reader.
    """
    return {
        "model": name,
        "origin": graph.origin,
        "parameters": graph.parameters,
        "outputs": [_output(wiring, graph) for wiring in wirings(graph)],
    }


def errors_of(report: dict[str, Any]) -> list[str]:
    """Return the errors of a report, each once."""
    lines = [a["text"] for o in report["outputs"] for a in o["advice"] if a["level"] == "error"]
    return list(dict.fromkeys(lines))


def _output(wiring: Wiring, graph: Graph) -> dict[str, Any]:
    rules = rate_rules(wiring, norms_known=graph.norms_known)
    return {
        "output": wiring.output,
        "whole": _measures(wiring.paths) | {"layers": sum(v.depth for v in wiring.values)},
        "segments": [_segment(segment) for segment in wiring.segments],
        "advice": [asdict(advice) for advice in advise(wiring, graph)],
        "learning_rate": {
            "applies": bool(rules),
            "why_not": "" if rules else why_no_rule(wiring, norms_known=graph.norms_known),
            "chains": [asdict(rule) for rule in rules],
            "neurons": NEURONS,
        },
        "drawing": layout(wiring.segments),
    }


def _segment(segment: Segment) -> dict[str, Any]:
    merges = segment.foreign_merges
    rank = None if merges else _rank(segment)
    return {
        "from": segment.values[0].name,
        "to": segment.values[-1].name,
        "layers": list(segment.layers),
        **_measures(segment.paths),
        "identity_path": segment.has_identity_path,
        "normalised": segment.has_norm,
        "foreign_merges": list(merges),
        "percentile_depth": None if rank is None else round(rank[0], 1),
        "percentile_width": None if rank is None else round(rank[1], 1),
    }


def _measures(paths: Paths) -> dict[str, Any]:
    return {
        "paths": str(paths.total),
        "log2_paths": round(math.log2(paths.total), 4) if paths.total else None,
        "depths": {str(t): str(count) for t, count in enumerate(paths.counts) if count},
        "shortest": paths.shortest,
        "longest": paths.longest,
        "effective_depth": _number(paths.effective_depth),
        "effective_width": _number(paths.effective_width),
        "exact": [str(paths.effective_depth), str(paths.effective_width)],
        "bound": _finite(paths.bound()),
        "bound_per_path": round(paths.bound_per_path(), 6) if paths.total else None,
    }


def _finite(value: float) -> float | None:
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _number(value: Fraction) -> float | None:
    """Return a float, or None beyond what one holds; `exact` has it all."""
    try:
        return float(f"{float(value):.6g}")
    except OverflowError:
        return None


def _rank(segment: Segment) -> tuple[float, float] | None:
    """Return the percentiles of a segment among the DAGs of its own size."""
    from tinygrow.connectivity.space import rank_among_equals

    small = segment.dag.contracted()
    nodes = small.nodes + _doubled(small)
    return rank_among_equals(segment.paths, nodes, len(segment.layers))


def _doubled(dag: Dag) -> int:
    """Return how many edges join nodes that another joins: each takes a node of its own."""
    return len(dag.edges) - len({(edge.source, edge.target) for edge in dag.edges})
