"""What commands of the command line share."""

from collections.abc import Callable
from typing import Any

import click


def model_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument MODEL."""
    return click.argument("model")(command)


def checked(group: str, name: str) -> Any:
    """Check all of params.yaml before work begins; return who tells of the work."""
    from pipeline import params, schema
    from pipeline.progress import TerminalObserver

    values = params.read()
    schema.check(values)
    values.require(group, name)
    return TerminalObserver()
