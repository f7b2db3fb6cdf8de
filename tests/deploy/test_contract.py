import json

import pytest

from tinygrow.deploy.contract import Contract
from tinygrow.errors import TinygrowError

CONTRACT = Contract(
    model="birds", classes=("é", "b"), shape=(3, 4, 5), mean=(0.1, 0.2, 1 / 3), std=(1e-5, 0.5, 1.0)
)


def metadata(**changes: object) -> dict[str, str]:
    taken = json.loads(CONTRACT.input_json()) | changes
    return {"model": "birds", "classes": '["é", "b"]', "input": json.dumps(taken)}


def test_survives_the_way_through_metadata() -> None:
    assert Contract.from_metadata(metadata()) == CONTRACT


@pytest.mark.parametrize(("channels", "mode"), [(1, "grey"), (3, "color"), (5, "5 channels")])
def test_mode(channels: int, mode: str) -> None:
    contract = Contract(model="m", classes=("a",), shape=(channels, 1, 1), mean=(), std=())
    assert contract.mode == mode
    assert json.loads(contract.input_json())["channels"] == mode


@pytest.mark.parametrize("key", ["model", "classes", "input"])
def test_missing_entry(key: str) -> None:
    entries = metadata()
    del entries[key]
    with pytest.raises(TinygrowError, match=rf"not that of tinygrow \(KeyError: '{key}'\); use"):
        Contract.from_metadata(entries)


@pytest.mark.parametrize(
    "changes", [{"dtype": "float32"}, {"layout": "NHWC"}, {"name": "x"}, {"shape": [3, 4]}]
)
def test_another_input(changes: dict[str, object]) -> None:
    with pytest.raises(TinygrowError, match="not that of tinygrow"):
        Contract.from_metadata(metadata(**changes))
