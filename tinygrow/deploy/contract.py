"""What a model file says of itself: the metadata that export writes and everyone else reads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tinygrow.errors import TinygrowError

INPUT = "images"
OUTPUT = "logits"
BATCH = "batch"

KEYS = (
    "tinygrow_version",
    "model",
    "precision",
    "data",
    "data_source",
    "classes",
    "input",
    "test_accuracy",
    "parameters",
    "multiply_adds",
    "growth",
    "versions",
    "digest",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a model takes and gives.

    Attributes:
        model: name of the model.
        classes: names, in the order of the logits.
        shape: channels, height, width of an image.
        mean: of each channel, in units of full scale; subtracted inside the model.
        std: likewise; divided by inside the model.
    """

    model: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def mode(self) -> str:
        """`grey`, `color`, or the number of channels where there is no name for it."""
        return {1: "grey", 3: "color"}.get(self.shape[0], f"{self.shape[0]} channels")

    def input_json(self) -> str:
        """Return the value of the metadata entry `input`."""
        return json.dumps(
            {
                "name": INPUT,
                "layout": "NCHW",
                "dtype": "uint8",
                "range": [0, 255],
                "shape": [BATCH, *self.shape],
                "channels": self.mode,
                "mean": list(self.mean),
                "std": list(self.std),
            }
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Read the contract back from a model's metadata.

        Raises:
            TinygrowError: an entry is missing or not what export writes.
        """
        try:
            taken: dict[str, Any] = json.loads(metadata["input"])
            classes = json.loads(metadata["classes"])
            if (taken["name"], taken["layout"], taken["dtype"]) != (INPUT, "NCHW", "uint8"):
                raise ValueError(f"its input is {metadata['input']}")
            _, channels, height, width = taken["shape"]
            return cls(
                model=metadata["model"],
                classes=tuple(str(name) for name in classes),
                shape=(int(channels), int(height), int(width)),
                mean=tuple(float(x) for x in taken["mean"]),
                std=tuple(float(x) for x in taken["std"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TinygrowError(
                f"the model's metadata is not that of tinygrow ({type(error).__name__}: {error});"
                " use a file that the export stage made"
            ) from error
