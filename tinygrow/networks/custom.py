"""Networks of the user's: a function that an `Architecture` names, and widths to set it to.

The function is called as `function(input_shape, classes, **arguments)` and returns a plain module
at the widths that growth is to reach, with its own initialisation.
"""

import copy
import json
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.errors import TinygrowError
from tinygrow.growth.discovery import find_sites
from tinygrow.growth.found import Discovery
from tinygrow.growth.resize import resize
from tinygrow.networks.tracing import first_line

Function = Callable[..., nn.Module]

_EXAMPLES = 2  # images that the network is tried on


def load_function(name: str) -> Function:
    """Import the function `package.module:function`.

    Raises:
        TinygrowError: there is no such module or function, or the module does not import.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise TinygrowError(
                f"architecture {name}: there is no module {error.name}; put it beside params.yaml,"
                " such as networks/mine.py for networks.mine, or install it"
            ) from error
        raise TinygrowError(f"architecture {name}: {module_name} needs {error.name}") from error
    # The user's own code runs, and can raise anything.
    except Exception as error:
        raise TinygrowError(
            f"architecture {name}: {module_name} does not import"
            f" ({type(error).__name__}: {first_line(error)})"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise TinygrowError(
            f"architecture {name}: {module_name} has no function {function_name!r}; define"
            f" {function_name}(input_shape, classes) there"
        )
    return function


def full_network(architecture: Architecture, seed: int | None = None) -> nn.Module:
    """Return the network at the widths that its function gives it; no global generator moves.

    Args:
        architecture: of kind `custom`.
        seed: of the function's own random draws.

    Raises:
        TinygrowError: the function cannot be found, fails, or returns no module.
    """
    name, arguments = architecture.network, architecture.arguments
    function = load_function(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if seed is None else seed)
        try:
            network = function(architecture.input_shape, architecture.classes, **arguments)
        except Exception as error:
            given = "".join(f", {key}={value!r}" for key, value in arguments.items())
            raise TinygrowError(
                f"architecture {name}: the call with {architecture.input_shape},"
                f" {architecture.classes}{given} fails ({type(error).__name__}:"
                f" {first_line(error)})"
            ) from error
    if not isinstance(network, nn.Module):
        raise TinygrowError(
            f"architecture {name} returned a {type(network).__name__}; it must return a"
            " torch.nn.Module"
        )
    return network


def discover(architecture: Architecture) -> Discovery:
    """Return the sites of a network, with the widths that its function gives them.

    Args:
        architecture: of kind `custom`; its `middle_widths` are not looked at.

    Raises:
        TinygrowError: the network does not run, gives logits of another shape, or has nothing that
            can grow.
    """
    return _discover(
        load_function(architecture.network),
        architecture.network,
        json.dumps(architecture.arguments, sort_keys=True),
        architecture.input_shape,
        architecture.classes,
    )


@lru_cache(maxsize=64)
def _discover(
    function: Function, name: str, arguments: str, input_shape: tuple[int, int, int], classes: int
) -> Discovery:
    """Discover once a process: a cost model asks for each of the widths of a growth."""
    architecture = Architecture(
        kind="custom",
        input_shape=input_shape,
        classes=classes,
        network=name,
        arguments=json.loads(arguments),
    )
    network = full_network(architecture)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(_EXAMPLES, *input_shape, generator=generator)
    _check_logits(network, example, architecture)
    discovery = find_sites(network, example)
    if not discovery.sites:
        raise TinygrowError(
            f"architecture {name} has no width that may grow: "
            + "; ".join(f"{r.layer or 'the network'}: {r.why}" for r in discovery.refused)
        )
    return discovery


def build_custom(architecture: Architecture, seed: int | None = None) -> nn.Module:
    """Return the network at the widths of the architecture.

    Args:
        architecture: of kind `custom`.
        seed: of the weights, which are the function's own; those of a narrower layer are the first
            of the full one.

    Raises:
        TinygrowError: the architecture has another number of widths than the network.
    """
    discovery = discover(architecture)
    widths = architecture.middle_widths
    if len(widths) != len(discovery):
        raise TinygrowError(
            f"architecture {architecture.network}: {len(widths)} middle widths for a network that"
            f" can grow at {len(discovery)}; its code was another when they were written, so grow"
            " the model again"
        )
    network = full_network(architecture, seed)
    for site, width in zip(discovery, widths, strict=True):
        resize(network, site, width)
    return network


@torch.no_grad()
def _check_logits(network: nn.Module, example: torch.Tensor, architecture: Architecture) -> None:
    """Run the network as it comes and as training runs it, with channels last in memory."""
    name, shape = architecture.network, architecture.input_shape
    try:
        network = copy.deepcopy(network).eval()
    except Exception as error:  # pruning leaves weights that are results, for example
        raise TinygrowError(
            f"architecture {name} cannot be copied, as growth has to ({first_line(error)})"
        ) from error
    try:
        logits: Any = network(example)
    except Exception as error:
        raise TinygrowError(
            f"architecture {name} does not run on images of {shape}"
            f" ({type(error).__name__}: {first_line(error)})"
        ) from error
    layout = torch.channels_last
    try:
        network.to(memory_format=layout)(example.contiguous(memory_format=layout))
    except Exception as error:
        raise TinygrowError(
            f"architecture {name} does not run with channels last in memory, as training lays them"
            f" out; take flatten or reshape where it takes view ({first_line(error)})"
        ) from error
    right = (len(example), architecture.classes)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != right:
        given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise TinygrowError(
            f"architecture {name} gives {given} for {len(example)} images; it must give logits"
            f" {right}"
        )
