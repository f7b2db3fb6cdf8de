"""`Predictor`: an .onnx file and nothing else, from images to classes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinygrow.data.images import decode_image, read_image, to_uint8
from tinygrow.deploy.contract import INPUT, OUTPUT, Contract
from tinygrow.deploy.sessions import first_line, open_session, provider_of
from tinygrow.errors import TinygrowError

Source = str | Path | bytes | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        label: the most probable class.
        probability: of that class, from 0 to 1.
        top: the most probable classes with their probabilities, best first.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


class Predictor:
    """A model file ready to use; classes and image size come from the file itself.

    Several threads may use one predictor at the same time: nothing changes after it is made, and
    sessions of ONNX Runtime allow it.

    Args:
        path: of an .onnx file that the export stage made.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`; see `open_session`.
        threads: of the CPU; 0: as many as there are cores.

    Attributes:
        contract: classes, shape and normalisation of the model.
        precision: `fp32`, `fp16` or `int8`; None where the file does not say.
        provider: where the model runs, as the session says.

    Raises:
        TinygrowError: the file is missing, damaged or not a model of tinygrow, or the provider
            does not run here.
    """

    def __init__(self, path: str | Path, provider: str = "auto", *, threads: int = 0) -> None:
        self._session = open_session(Path(path), provider, threads=threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.contract = Contract.from_metadata(metadata)
        self.precision: str | None = metadata.get("precision")
        self.provider = provider_of(self._session)

    def predict(
        self, images: Source | Iterable[Source], *, top: int = 5, batch_size: int = 64
    ) -> list[Prediction]:
        """Return one prediction an image.

        Args:
            images: one image or several: paths, the bytes of image files, Pillow images, or uint8
                arrays: (C, H, W) of the model's shape, or (H, W) or (H, W, 3) of any size. A batch
                (N, C, H, W) of the model's shape counts as N images.
            top: how many classes to name for each, from 1; all of them where that is more.
            batch_size: images at once, from 1.

        Raises:
            TinygrowError: an image is missing, damaged, or of a type or shape the model cannot
                take.
        """
        for name, value in (("top", top), ("batch_size", batch_size)):
            if value < 1:
                raise TinygrowError(f"{name} is {value}; it must be at least 1")
        result: list[Prediction] = []
        for batch in _batches(_sources(images), batch_size):
            logits = self.logits(np.stack([self.prepare(source) for source in batch]))
            result += [self._prediction(row, top) for row in softmax(logits)]
        return result

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits (N, classes) of uint8 images (N, C, H, W) of the model's shape."""
        if images.dtype != np.uint8 or images.shape[1:] != self.contract.shape:
            raise TinygrowError(
                f"images are {images.dtype}{list(images.shape)}; the model takes"
                f" uint8[N, {', '.join(map(str, self.contract.shape))}]"
            )
        try:
            found = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(images)})[0]
        except Exception as error:
            # The runtime's exceptions share no base class.
            raise TinygrowError(
                f"the model failed on {self.provider} with {len(images)} images"
                f" ({first_line(error)}); try a smaller batch or provider='cpu'"
            ) from error
        return np.asarray(found, np.float32)

    def prepare(self, source: Source) -> NDArray[np.uint8]:
        """Return one image as the model takes it, uint8 (C, H, W).

        Raises:
            TinygrowError: it is missing, damaged, or of a type or shape the model cannot take.
        """
        shape = self.contract.shape
        if isinstance(source, np.ndarray):
            if source.dtype != np.uint8:
                raise TinygrowError(
                    f"an image is an array of {source.dtype}; give uint8 values from 0 to 255"
                )
            if source.shape == shape:
                return source
            if source.ndim != 2 and (source.ndim != 3 or source.shape[2] != 3):
                raise TinygrowError(
                    f"an image has shape {list(source.shape)}; give {list(shape)} (C, H, W), or"
                    " (H, W) or (H, W, 3) of any size"
                )
            if source.size == 0:
                raise TinygrowError(
                    f"an image has shape {list(source.shape)}, without a pixel; leave it out"
                )
            source = Image.fromarray(source)
        channels, height, width = shape
        if channels not in (1, 3) or height != width:
            raise TinygrowError(
                f"the model takes images of shape {list(shape)}, which no image file fits; give"
                " uint8 arrays of that shape"
            )
        if isinstance(source, Image.Image):
            return _from_pillow(source, size=height, channels=channels)
        if isinstance(source, bytes):
            return decode_image(source, name="image", size=height, channels=channels)
        if not isinstance(source, str | Path):
            raise TinygrowError(
                f"an image is a {type(source).__name__}; give a path, bytes, a Pillow image or a"
                " uint8 array"
            )
        return read_image(Path(source), size=height, channels=channels)

    def _prediction(self, probabilities: NDArray[np.float64], top: int) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")[:top]
        best = tuple((self.contract.classes[i], float(probabilities[i])) for i in order)
        return Prediction(best[0][0], best[0][1], best)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities (N, classes), in float64."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def _sources(images: Source | Iterable[Source]) -> Iterable[Source]:
    if isinstance(images, str | Path | bytes | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim < 4:
        return [images]
    if isinstance(images, bytearray | memoryview):  # else they count as numbers
        return [bytes(images)]
    if not isinstance(images, Iterable):
        raise TinygrowError(
            f"images is a {type(images).__name__}; give an image, or several in a list"
        )
    return images


def _from_pillow(image: Image.Image, *, size: int, channels: int) -> NDArray[np.uint8]:
    if 0 in image.size:  # Pillow would resize it without a word, to black
        raise TinygrowError(
            f"an image has {image.width} x {image.height} pixels, which is none; leave it out"
        )
    try:
        return to_uint8(image, size=size, channels=channels)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow decodes when pixels are asked for
        raise TinygrowError(f"an image is damaged ({error}); replace or leave it out") from error


def _batches(sources: Iterable[Source], size: int) -> Iterator[list[Source]]:
    batch: list[Source] = []
    for source in sources:
        batch.append(source)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
