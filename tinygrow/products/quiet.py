"""Other makers' tools at work, without their warnings, logs and prints."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from tinygrow.deploy.sessions import first_line
from tinygrow.errors import TinygrowError


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, log and output of tools that tell of their own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def failures_of(product: str) -> Iterator[None]:
    """Turn what ONNX Runtime raises as it runs a candidate into a reason not to make it.

    Args:
        product: its precision.

    Raises:
        TinygrowError: the block raised something else.
    """
    try:
        yield
    except TinygrowError:
        raise
    # The runtime's exceptions share no base class.
    except Exception as error:
        raise TinygrowError(
            f"ONNX Runtime fails on the candidate for {product} ({first_line(error)}); leave"
            f" {product} out of export.precisions"
        ) from error


@contextmanager
def onnxruntime_tools() -> Iterator[None]:
    """Let ONNX Runtime's converter and quantiser be imported and used, in silence.

    Their modules name each other as if they stood in a folder of Python's path. It is there inside
    of the block alone, for other modules of these names would be hidden.
    """
    before = list(sys.path)
    sys.path.append(str(Path(onnxruntime.__file__).parent / "transformers"))
    try:
        with quiet():
            yield
    finally:
        sys.path[:] = before
