"""A network on disk: safetensors weights with the architecture and its history in the header."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.data.prepared import DataCard
from tinygrow.errors import TinygrowError
from tinygrow.files import atomic_path
from tinygrow.networks.build import build_network

FORMAT = "tinygrow-checkpoint-1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded network.

    Attributes:
        architecture: what the network is.
        network: the module, in evaluation mode, on the CPU.
        notes: plain data that travels along: growth history, settings.
    """

    architecture: Architecture
    network: nn.Module
    notes: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    path: Path, architecture: Architecture, network: nn.Module, notes: Mapping[str, Any]
) -> None:
    """Write weights and header atomically; the same values give the same bytes.

    Args:
        path: of the .safetensors file.
        architecture: must rebuild `network`.
        network: its state dict is stored, contiguous, on the CPU.
        notes: plain data for JSON; no times, no paths.
    """
    # safetensors writes header entries in an order of its own making; one entry keeps the bytes
    # the same from run to run.
    header = json.dumps(
        {"format": FORMAT, "architecture": architecture.to_dict(), "notes": dict(notes)},
        sort_keys=True,
    )
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"tinygrow": header})
        except SafetensorError as error:  # this is how it calls a full disk
            raise OSError(str(error)) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a network back.

    Raises:
        TinygrowError: the file is missing, damaged or not a checkpoint of tinygrow.
    """
    path = Path(path)
    if not path.is_file():
        raise TinygrowError(f"{path} does not exist; run the stage that makes it (dvc repro)")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("tinygrow", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise TinygrowError(
            f"{path} is damaged ({error}); delete it and run its stage again"
        ) from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise TinygrowError(f"{path} has format {found!r}, not {FORMAT!r}; run its stage again")
    try:
        architecture, notes = Architecture.from_dict(header["architecture"]), header["notes"]
    except (KeyError, TinygrowError) as error:
        raise TinygrowError(
            f"{path}: its header is damaged ({error}); delete it and run its stage again"
        ) from error
    network = build_network(architecture)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise TinygrowError(
            f"{path}: weights do not fit its architecture ({str(error).splitlines()[0]});"
            " run its stage again"
        ) from error
    return Checkpoint(architecture, network.eval(), notes)


def require_fit(checkpoint: Checkpoint, card: DataCard, path: Path) -> None:
    """Refuse a checkpoint that was made for other images.

    Args:
        checkpoint: read from `path`.
        card: of the data set that it is to be used with.
        path: for the message.

    Raises:
        TinygrowError: shape of images, number of classes or name of the data set differ.
    """
    architecture, data = checkpoint.architecture, checkpoint.notes.get("data", card.name)
    made_for = (data, architecture.input_shape, architecture.classes)
    given = (card.name, card.shape, len(card.classes))
    if made_for != given:
        raise TinygrowError(
            f"{path} was made for the data set {data} (images {architecture.input_shape},"
            f" {architecture.classes} classes), not for {card.name} (images {card.shape},"
            f" {len(card.classes)} classes); grow the model again or name another checkpoint"
        )
