"""Whatever the files hold, the answer is a verdict or one clear error."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.certify.files import Files
from tinygrow.certify.check import check_certificate
from tinygrow.errors import TinygrowError

JUNK = [None, [], {}, "x", "", -1, 0, 1, 3.5, 1e308, True, 10**30, [[]], [None], ["a"], {"a": 1}]


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every part of plain data."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        yield (*above, key)
        if isinstance(part, dict | list):
            yield from places(part, (*above, key))


def put(value: Any, place: tuple[Any, ...], part: Any) -> Any:
    """Return plain data with one part replaced."""
    result = copy.deepcopy(value)
    home = result
    for key in place[:-1]:
        home = home[key]
    home[place[-1]] = part
    return result


@pytest.mark.parametrize("name", ["dense", "blocks"])
def test_junk_in_a_certificate(name: str, request: pytest.FixtureRequest) -> None:
    """One part is replaced; what was accepted is accepted no more, unless nothing hangs on it."""
    files: Files = request.getfixturevalue(name)
    rng = random.Random(0)
    ways = list(places(files.value))
    idle = {"model", "counts", "file", "slack", "dropped"}
    for _ in range(150):
        place, junk = rng.choice(ways), rng.choice(JUNK)
        files.paths[0].write_text(json.dumps(put(files.value, place, junk)))
        try:
            found = check_certificate(*files.paths)
        except TinygrowError:
            continue
        if found.accepted:
            same = {"action": ("kept",), "method": (), "bound": (), "kind": ()}
            assert idle & set(place) or place[-1] in same or junk in ([], {}), (place, junk)


@pytest.mark.parametrize("number", [1, 2])
def test_flipped_bytes_of_a_network(dense: Files, number: int) -> None:
    path = dense.paths[number]
    content = path.read_bytes()
    rng = random.Random(number)
    for _ in range(150):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 5))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(bytes(changed))
        try:
            found = check_certificate(*dense.paths)
        except TinygrowError:
            continue
        # What lies outside of the graph, or names a value, is of no account.
        assert number == 2 or not found.accepted or bytes(changed) == content
