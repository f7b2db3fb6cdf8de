"""A module's values by way of its ONNX graph, where `torch.fx` cannot look into it."""

import contextlib
import io
from dataclasses import replace

import torch
from torch import nn

from tinygrow.connectivity.from_fx import UnreadableError, from_module
from tinygrow.connectivity.from_onnx import from_onnx
from tinygrow.connectivity.graph import Graph
from tinygrow.errors import TinygrowError
from tinygrow.networks.tracing import first_line
from tinygrow.products.quiet import quiet


def from_module_or_export(network: nn.Module, *examples: torch.Tensor) -> Graph:
    """Return the values of a module, by `torch.fx` or else by an export that is not kept.

    Raises:
        TinygrowError: neither works.
    """
    try:
        return from_module(network, *examples)
    except UnreadableError as error:
        unreadable = str(error)
    training = network.training
    try:
        # What cannot be exported is told at length, in print.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            program = torch.onnx.export(network.eval(), examples, dynamo=True, verbose=False)
    except Exception as error:  # the exporter raises types of no common base
        # The exporter's own words are of its steps; what went wrong is behind them.
        reason = first_line(error.__cause__ or error)
        raise TinygrowError(
            f"{unreadable}, and PyTorch cannot export it to ONNX either ({reason}); name"
            " the part that can be traced, or an .onnx file"
        ) from error
    finally:
        network.train(training)
    assert program is not None
    graph = from_onnx(program.model_proto)
    return replace(graph, origin=f"ONNX, for {unreadable}")
