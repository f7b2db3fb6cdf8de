"""Runs whose images and logits stay where they are: no copy that a caller did not ask for.

`session.run` takes arrays of the CPU and returns such. `run_bound` reads and writes tensors on the
session's own device, those of PyTorch among them; `FixedBatch` holds one pair of buffers for all
runs, as CUDA graphs need it. PyTorch is never imported here.
"""

from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tinygrow.deploy.contract import INPUT, OUTPUT
from tinygrow.errors import TinygrowError

_DEVICES = {"CPUExecutionProvider": "cpu"}


class Tensor(Protocol):
    """What is asked of a tensor; PyTorch's have it."""

    @property
    def shape(self) -> Any: ...  # noqa: D102 - as in PyTorch

    @property
    def dtype(self) -> Any: ...  # noqa: D102

    @property
    def device(self) -> Any: ...  # noqa: D102

    def data_ptr(self) -> int: ...  # noqa: D102

    def is_contiguous(self) -> bool: ...  # noqa: D102


def device_of(session: ort.InferenceSession) -> tuple[str, int]:
    """Return the type, `cpu` or `cuda`, and the index of the device that a session runs on."""
    provider = session.get_providers()[0]
    options = session.get_provider_options().get(provider, {})
    return _DEVICES.get(provider, "cuda"), int(options.get("device_id", 0))


def run_bound(session: ort.InferenceSession, images: Tensor, logits: Tensor) -> None:
    """Run a model from one tensor into another, both on its device.

    What PyTorch still computes on the GPU is not waited for: synchronise its stream first. When
    this returns, the logits are there.

    Args:
        session: from `open_session`.
        images: uint8 (N, C, H, W), contiguous.
        logits: float32 (N, classes), contiguous; overwritten.

    Raises:
        TinygrowError: a tensor is of another device, type or shape, or not contiguous.
    """
    kind, index = device_of(session)
    _check("images", images, "uint8", _shape(session.get_inputs()[0], len_of(images)), kind, index)
    _check(
        "logits", logits, "float32", _shape(session.get_outputs()[0], len_of(images)), kind, index
    )
    binding = session.io_binding()
    binding.bind_input(INPUT, kind, index, np.uint8, tuple(images.shape), images.data_ptr())
    binding.bind_output(OUTPUT, kind, index, np.float32, tuple(logits.shape), logits.data_ptr())
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()


def len_of(tensor: Tensor) -> int:
    """Return the size of a tensor's first dimension; 0 where it has none."""
    return int(tensor.shape[0]) if len(tensor.shape) else 0


class FixedBatch:
    """One pair of buffers on the session's device, for batches of one size.

    With `GpuOptions(cuda_graph=True)` the first run records its kernels, and later ones replay
    them; a session records one graph, so that it serves one `FixedBatch`.

    Args:
        session: from `open_session`.
        batch: images of every run.
    """

    def __init__(self, session: ort.InferenceSession, batch: int) -> None:
        kind, index = device_of(session)
        self._session = session
        self._shape = _shape(session.get_inputs()[0], batch)
        given = _shape(session.get_outputs()[0], batch)
        make = ort.OrtValue.ortvalue_from_shape_and_type
        self._images = make(list(self._shape), np.uint8, kind, index)
        self._logits = make(list(given), np.float32, kind, index)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(INPUT, self._images)
        self._binding.bind_ortvalue_output(OUTPUT, self._logits)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Copy images to the device, run, and return a copy of the logits (batch, classes).

        Raises:
            TinygrowError: the images are not uint8 of the shape that was fixed.
        """
        if images.dtype != np.uint8 or images.shape != self._shape:
            raise TinygrowError(
                f"images are {images.dtype}{list(images.shape)}; this batch is fixed to"
                f" uint8{list(self._shape)}"
            )
        self._images.update_inplace(np.ascontiguousarray(images))
        self.replay()
        return np.array(self._logits.numpy(), np.float32)

    def replay(self) -> None:
        """Run again on the images that are on the device, and wait: what a benchmark times."""
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()


def _shape(value: Any, batch: int) -> tuple[int, ...]:
    return (batch, *(int(size) for size in value.shape[1:]))


def _check(
    name: str, tensor: Tensor, kind: str, shape: tuple[int, ...], device: str, index: int
) -> None:
    found = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
    if found != (kind, shape) or not tensor.is_contiguous():
        contiguous = "" if tensor.is_contiguous() else ", not contiguous"
        raise TinygrowError(
            f"{name} are {found[0]}{list(found[1])}{contiguous}; give a contiguous"
            f" {kind}{list(shape)}"
        )
    place = (str(tensor.device.type), int(tensor.device.index or 0))
    if place != (device, index if device != "cpu" else 0):
        raise TinygrowError(
            f"{name} are on {place[0]}:{place[1]}, the model runs on {device}:{index}; move them"
            " there or open another session"
        )
