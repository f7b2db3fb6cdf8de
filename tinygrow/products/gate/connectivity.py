"""Is the file wired as the network is?"""

import torch

from tinygrow.connectivity.from_fx import UnreadableError, from_module
from tinygrow.connectivity.from_onnx import from_onnx
from tinygrow.connectivity.segments import Wiring, wirings
from tinygrow.products.gate.check import Check, judge, skipped
from tinygrow.products.gate.subject import Subject

_NAME = "connectivity"


def connectivity(subject: Subject) -> Check:
    """The file's paths through layers are the network's, segment by segment.

    Only ways through layers are compared: an exporter may write what lies between them in more
    operators or in fewer, and other checks compare what they compute.
    """
    try:
        graph = from_module(subject.network, torch.zeros(2, *subject.card.shape))
    except UnreadableError as error:
        return skipped(_NAME, f"the network cannot be read: {error}")
    right, found = (
        wirings(read, layers_alone=True)[0] for read in (graph, from_onnx(subject.model))
    )
    problems = [] if right.depths == found.depths else [_difference(right, found)]
    numbers = {
        "layers": sum(value.depth for value in found.values),
        "segments": len(found.segments),
        "effective_depth": float(found.paths.effective_depth),
    }
    return judge(_NAME, problems, numbers)


def _difference(right: Wiring, found: Wiring) -> str:
    """Name the first segment that differs."""
    for number, (one, other) in enumerate(zip(right.segments, found.segments, strict=False), 1):
        if one.paths != other.paths:
            return (
                f"segment {number}, {one.values[0].name} to {one.values[-1].name}, has paths by"
                f" depth {list(other.paths.counts)}, not {list(one.paths.counts)}"
            )
    return f"{len(found.segments)} segments, not {len(right.segments)}"
