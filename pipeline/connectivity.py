"""Reports on how networks are wired, for the command line."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import params as parameters
from pipeline import paths, schema
from tinygrow.connectivity.compare import compare
from tinygrow.connectivity.graph import Graph
from tinygrow.connectivity.report import describe, errors_of
from tinygrow.connectivity.text import report_lines
from tinygrow.errors import TinygrowError
from tinygrow.files import write_bytes, write_text

_FUNCTION = re.compile(r"[\w.]+:\w+")
_SHAPE = re.compile(r"[1-9]\d*(,[1-9]\d*)*")
_DRAWN = (".svg", ".png")
_CHANNELS, _CLASSES, _SIZE = 3, 10, 32

Shape = tuple[int, ...]


def lines(
    target: str,
    *,
    strict: bool,
    picture: Path | None,
    against: str | None,
    as_json: bool,
    shape: str | None,
    classes: int | None,
) -> Iterator[str]:
    """Yield the report on a network.

    Args:
        target: a model of `params.yaml`, `package.module:function` or an .onnx file.
        strict: fail at the end if there are dead paths.
        picture: file of the drawing.
        against: another network, named likewise, to compare with.
        as_json: one JSON text instead of lines.
        shape: of an image, such as `3,32,32`.
        classes: that a function is called with.

    Raises:
        TinygrowError: the network cannot be read, or has dead paths and `strict` is on.
    """
    if picture is not None and picture.suffix not in _DRAWN:
        raise TinygrowError(f"the picture is {picture}; its name must end in .svg or .png")
    graph = read(target, _shape(shape), classes)
    report = describe(target, graph)
    compared: list[str] = []
    if against is not None:
        compared = compare(report, describe(against, read(against, _shape(shape), classes)))
        report["against"] = compared
    if picture is not None:
        _draw(report, picture)
    if as_json:
        yield json.dumps(report, indent=2, allow_nan=False)
    else:
        yield from report_lines(report)
        yield from compared
    errors = errors_of(report)
    if strict and errors:
        raise TinygrowError(
            f"{target} has dead paths: {'; '.join(errors[:3])}"
            f"{f' and {len(errors) - 3} more' if len(errors) > 3 else ''}; remove the layers or"
            " connect them"
        )


def space_lines(*, as_json: bool, repeats: int) -> Iterator[str]:
    """Yield what the filter keeps of NAS-Bench-201's cells."""
    from tinygrow.connectivity import space_report, tables

    report = space_report.describe_space(tables.folder(), repeats=repeats)
    if as_json:
        yield json.dumps(report, indent=2, allow_nan=False)
    else:
        yield from space_report.space_lines(report)


def read(target: str, shape: Shape | None, classes: int | None) -> Graph:
    """Return the values of whatever network is named."""
    if target.endswith(".onnx") or Path(target).is_file():
        from tinygrow.connectivity.from_onnx import from_onnx, load_onnx

        return from_onnx(load_onnx(Path(target)))
    if _FUNCTION.fullmatch(target):
        return _function(target, shape or (_CHANNELS, _SIZE, _SIZE), classes or _CLASSES)
    return _model(target, shape, classes)


def _model(name: str, shape: Shape | None, classes: int | None) -> Graph:
    """Read a model of `params.yaml` at full width; widths and classes change no path."""
    values = parameters.read()
    schema.check(values)
    values.require("models", name)
    from pipeline.sections.data import data_settings
    from pipeline.sections.network import network_settings
    from tinygrow.architecture import final_architecture
    from tinygrow.data.prepared import load_card
    from tinygrow.networks.build import build_network
    from tinygrow.settings.network import CustomSettings

    data = values.value(name, "data")
    size = data_settings(values, data).size
    found: Shape = (_CHANNELS, size, size)
    count = _CLASSES
    if paths.prepared(data).is_file():
        card = load_card(paths.prepared(data))
        found, count = card.shape, len(card.classes)
    found, count = shape or found, classes or count
    settings = network_settings(values, name)
    if isinstance(settings, CustomSettings):
        return _function(settings.network, found, count, settings.arguments)
    if len(found) != 3:
        raise TinygrowError(f"the shape is {found}; {name} reads channels, height, width")
    architecture = final_architecture(settings, (found[0], found[1], found[2]), count)
    return _module(build_network(architecture), found)


def _function(
    name: str, shape: Shape, classes: int, arguments: dict[str, Any] | None = None
) -> Graph:
    """Call a function for a network: with shape and classes, or with neither if it takes none."""
    import torch

    from tinygrow.networks.custom import load_function
    from tinygrow.networks.tracing import first_line

    function = load_function(name)
    try:
        inspect.signature(function).bind(shape, classes, **(arguments or {}))
        given: tuple[Any, ...] = (shape, classes)
    except TypeError:
        given = ()
    try:
        with torch.random.fork_rng(devices=[]):
            network = function(*given, **(arguments or {}))
    except Exception as error:  # the user's own code runs
        raise TinygrowError(
            f"{name} fails when it is called with {given} ({type(error).__name__}:"
            f" {first_line(error)}); give it (input_shape, classes), or no arguments"
        ) from error
    if not isinstance(network, torch.nn.Module):
        raise TinygrowError(
            f"{name} returned a {type(network).__name__}; it must return a torch.nn.Module"
        )
    return _module(network, shape)


def _module(network: Any, shape: Shape) -> Graph:
    import torch

    from tinygrow.connectivity.from_export import from_module_or_export

    return from_module_or_export(network, torch.zeros(2, *shape))


def _shape(text: str | None) -> Shape | None:
    if text is None:
        return None
    if not _SHAPE.fullmatch(text):
        raise TinygrowError(f"the shape is {text!r}; it must be numbers such as 3,32,32")
    return tuple(map(int, text.split(",")))


def _draw(report: dict[str, Any], picture: Path) -> None:
    from tinygrow.connectivity.drawing import draw, draw_png

    if picture.suffix == ".svg":
        write_text(picture, draw(report))
    else:
        write_bytes(picture, draw_png(report))
