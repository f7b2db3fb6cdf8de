"""The templates of a package, with the filters that they use."""

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

from tinygrow.errors import TinygrowError
from tinygrow.report import numbers


def render(template: str, **values: Any) -> str:
    """Return a template of this package, filled in.

    Raises:
        TinygrowError: a figure that it needs is missing.
    """
    environment = Environment(
        loader=PackageLoader("tinygrow.package", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "count": numbers.count,
        "percent": numbers.percent,
        "size": numbers.size,
        "text": quoted,
        "inline": inline,
    }
    try:
        return environment.get_template(template).render(**values)
    except (UndefinedError, KeyError) as error:
        raise TinygrowError(
            f"the figures of the model are not complete ({error}); run its stages again with this"
            " version (dvc repro)"
        ) from error


def quoted(text: str) -> str:
    """Return a string in the quotes that JSON, YAML and protobuf's text format share."""
    return json.dumps(text, ensure_ascii=False)


def inline(text: str) -> str:
    """Return a name as code inside a line or a table of Markdown."""
    plain = " ".join(str(text).split()).replace("|", "\\|")
    return f"`` {plain} ``" if "`" in plain else f"`{plain}`"
