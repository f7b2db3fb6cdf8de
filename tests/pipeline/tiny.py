"""Parameter files for tests; one whose whole pipeline runs in seconds."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.closure import ROOT

RESNET = {"kind": "resnet", "base_width": 4, "blocks": [1, 1], "start": 0.25}
MLP = {"kind": "mlp", "hidden": [16, 8], "start": 0.25}

GRADMAX = {"method": "gradmax"}

IMAGE_FOLDER = {
    "source": "image_folder",
    "path": "inbox/mine.zip",
    "size": 32,
    "mode": "color",
    "test_fraction": 0.2,
    "validation_fraction": 0.1,
    "max_train_images": 0,
    "max_test_images": 0,
    "seed": 0,
    "max_files": 2000000,
    "max_gigabytes": 50,
}


def read_shipped() -> dict[str, Any]:
    """Return the shipped file as plain values."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    tree: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return tree


def read_demo() -> dict[str, Any]:
    """Return the shipped file's model `demo` with its data set, and no other."""
    tree = read_shipped()
    tree["data"] = {"digits": tree["data"]["digits"]}
    tree["models"] = {"demo": tree["models"]["demo"]}
    return tree


def put(tree: dict[str, Any], place: str, value: Any) -> None:
    """Set the value at `place`, keys joined by dots; all but the last must be there."""
    *above, last = place.split(".")
    for key in above:
        tree = tree[key]
    tree[last] = value


def write_params(folder: Path, tree: dict[str, Any]) -> Path:
    """Write `params.yaml` into `folder` and return its path."""
    path = folder / "params.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(tree, file)
    return path


def write_tiny_params(folder: Path, architecture: dict[str, Any], **growth: Any) -> None:
    """Write `params.yaml`: the shipped file's model `demo`, made tiny.

    Args:
        folder: to write to.
        architecture: of the model.
        growth: settings of growth to change; of a section of it, those that are to change.
    """
    tree = read_demo()
    tree["data"]["digits"]["size"] = 8
    demo = tree["models"]["demo"]
    demo["device"] = "cpu"
    demo["architecture"] = architecture
    demo["growth"] |= {"extensions": 3, "epochs_between": 0.1}
    demo["growth"]["statistics"] |= {"min_images": 100, "max_images": 200}
    demo["growth"]["amplitude"] |= {"images": 100}
    for name, value in growth.items():
        old = demo["growth"][name]
        demo["growth"][name] = old | value if isinstance(old, dict) else value
    demo["finetune"] |= {"epochs": 2}
    demo["validate"] |= {"batch_sizes": [1, 3]}
    write_params(folder, tree)
