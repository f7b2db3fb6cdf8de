"""`predict`: from image files to lines of text, by ONNX Runtime; never imports torch."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from tinygrow.data.images import SUFFIXES
from tinygrow.deploy.predictor import Prediction, Predictor
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.settings.products import PRECISIONS

_BATCH = 64


def lines(
    images: Sequence[str],
    *,
    model: str | None,
    precision: str,
    top_k: int,
    provider: str,
    as_json: bool,
    observer: Observer,
) -> Iterator[str | TinygrowError]:
    """Yield one line an image: its most probable classes, as text or as a JSON object.

    What has no answer, such as a damaged image, is yielded as its error, in its place.

    Args:
        images: paths of image files, or of folders: all images in them and in their folders.
        model: see `find_model`.
        precision: likewise.
        top_k: how many classes to name.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        as_json: JSON instead of text.
        observer: told of progress, where there is more than one image.

    Raises:
        TinygrowError: there is no such model, or the provider does not run it.
    """
    predictor = Predictor(find_model(model, precision), provider)
    files = list(_files(images))
    if len(files) > 1:
        observer.begin("predict", len(files), "images")
    write = _json if as_json else _text
    for start in range(0, len(files), _BATCH):
        yield from _answers(predictor, files[start : start + _BATCH], top_k, write, observer)
    if len(files) > 1:
        observer.end()


def find_model(model: str | None, precision: str = "fp32") -> Path:
    """Return the .onnx file that `model` means.

    Args:
        model: an .onnx file; the name of a model under models/; or nothing: the only one there.
        precision: of a model that is named; a file is what it is.

    Raises:
        TinygrowError: there is none, or more than one to choose from.
    """
    folders = sorted(Path().glob(str(paths.model_folder("*"))))
    names = [folder.name for folder in folders if _precisions(folder.name)]
    if model is None:
        if not names:
            raise TinygrowError(
                f"there is no {paths.product('NAME')} in {Path.cwd()}; make one"
                " (`make demo`) or name an .onnx file with --model"
            )
        if len(names) > 1:
            raise TinygrowError(f"--model is not given; it must be one of {', '.join(names)}")
        model = names[0]
    if model in names:
        return _product(model, precision)
    if Path(model).is_file():
        return Path(model)
    near = get_close_matches(model, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
    raise TinygrowError(f"--model is {model!r}, neither a file nor a model under models/; {remedy}")


def _product(name: str, precision: str) -> Path:
    path = paths.product(name, precision)
    if not path.is_file():
        raise TinygrowError(
            f"{path} does not exist: {precision} of {name} was not published;"
            f" {paths.validation(name)} says why, and there is {', '.join(_precisions(name))}"
        )
    return path


def _precisions(name: str) -> list[str]:
    """Return the precisions of which there is a product, fp32 first."""
    return [p for p in PRECISIONS if paths.product(name, p).is_file()]


def _files(images: Iterable[str]) -> Iterator[str | TinygrowError]:
    """Yield image files, those of a folder and its folders by name."""
    for image in images:
        if not Path(image).is_dir():
            yield image
            continue
        problems: list[OSError] = []
        files = sorted(file for file in _inside(image, problems.append) if _is_image(file))
        yield from map(str, files)
        for problem in problems:
            yield TinygrowError(
                f"{problem.filename} cannot be read ({problem.strerror}); check its permissions"
            )
        if not files and not problems:
            yield TinygrowError(
                f"{image} is a folder without images; name images, or a folder with some"
            )


def _inside(folder: str, onerror: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the files of a folder and those in it, but of no hidden one.

    Links to folders are not followed: they may lead in circles.
    """
    for place, inner, names in os.walk(folder, onerror=onerror):
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield from (Path(place, name) for name in names)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _answers(
    predictor: Predictor,
    batch: Sequence[str | TinygrowError],
    top_k: int,
    write: Callable[[str, Prediction], str],
    observer: Observer,
) -> Iterator[str | TinygrowError]:
    read = [_read(predictor, entry) for entry in batch]
    pixels = [entry for entry in read if isinstance(entry, np.ndarray)]
    found = iter(predictor.predict(pixels, top=top_k, batch_size=_BATCH))
    for image, entry in zip(batch, read, strict=True):
        observer.advance()
        yield entry if isinstance(entry, TinygrowError) else write(str(image), next(found))


def _read(predictor: Predictor, image: str | TinygrowError) -> NDArray[np.uint8] | TinygrowError:
    if isinstance(image, TinygrowError):
        return image
    try:
        return predictor.prepare(image)
    except TinygrowError as error:
        return error


def _text(image: str, prediction: Prediction) -> str:
    classes = ", ".join(f"{label} {100 * share:.1f} %" for label, share in prediction.top)
    return f"{_readable(image)}: {classes}"


def _json(image: str, prediction: Prediction) -> str:
    top = [{"label": label, "probability": share} for label, share in prediction.top]
    return json.dumps(
        {
            "image": _readable(image),
            "label": prediction.label,
            "probability": prediction.probability,
            "top": top,
        },
        ensure_ascii=False,
    )


def _readable(image: str) -> str:
    """Return a file's name with what is no text in it replaced, so that it can be printed."""
    return os.fsencode(image).decode(errors="replace")
