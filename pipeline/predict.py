"""`predict`: from image files to lines of text, by ONNX Runtime; never imports torch."""

import json
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from pipeline import paths
from tinygrow.data.images import SUFFIXES
from tinygrow.deploy.predictor import Prediction, Predictor
from tinygrow.errors import TinygrowError

_BATCH = 64


def lines(
    images: Sequence[str], *, model: str | None, top_k: int, provider: str, as_json: bool
) -> Iterator[str | TinygrowError]:
    """Yield one line an image: its most probable classes, as text or as a JSON object.

    What has no answer, such as a damaged image, is yielded as its error, in its place.

    Args:
        images: paths of image files, or of folders: the images in them, but not in their folders.
        model: see `find_model`.
        top_k: how many classes to name.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        as_json: JSON instead of text.

    Raises:
        TinygrowError: there is no such model, or the provider does not run it.
    """
    predictor = Predictor(find_model(model), provider)
    files = list(_files(images))
    for start in range(0, len(files), _BATCH):
        for image, answer in _answers(predictor, files[start : start + _BATCH], top_k):
            if isinstance(answer, TinygrowError):
                yield answer
            else:
                yield _json(image, answer) if as_json else _text(image, answer)


def find_model(model: str | None) -> Path:
    """Return the .onnx file that `model` means.

    Args:
        model: an .onnx file; the name of a model under models/; or nothing: the only one there.

    Raises:
        TinygrowError: there is none, or more than one to choose from.
    """
    products = sorted(Path().glob(str(paths.product("*"))))
    names = [product.parents[1].name for product in products]
    if model is None:
        if len(products) == 1:
            return products[0]
        if not products:
            raise TinygrowError(
                f"there is no {paths.product('NAME')} in {Path.cwd()}; make one (`make demo`)"
                " or name an .onnx file with --model"
            )
        raise TinygrowError(f"--model is not given; it must be one of {', '.join(names)}")
    if model in names:
        return paths.product(model)
    if Path(model).is_file():
        return Path(model)
    near = get_close_matches(model, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
    raise TinygrowError(f"--model is {model!r}, neither a file nor a model under models/; {remedy}")


def _files(images: Iterable[str]) -> Iterator[str | TinygrowError]:
    """Yield image files, those of a folder by name."""
    for image in images:
        if not Path(image).is_dir():
            yield image
            continue
        try:
            files = sorted(file for file in Path(image).iterdir() if _is_image(file))
        except OSError as error:
            yield TinygrowError(f"{image} cannot be read ({error.strerror}); check its permissions")
            continue
        yield from map(str, files)
        if not files:
            yield TinygrowError(
                f"{image} is a folder without images; name images, or a folder with some"
            )


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not file.is_dir()


def _answers(
    predictor: Predictor, batch: Sequence[str | TinygrowError], top_k: int
) -> Iterator[tuple[str, Prediction | TinygrowError]]:
    images = [image for image in batch if isinstance(image, str)]
    found: dict[str, Prediction | TinygrowError] = {}
    try:
        found.update(zip(images, predictor.predict(images, top=top_k), strict=True))
    except TinygrowError:
        # One bad image stops its batch; alone, each says for itself.
        for image in images:
            try:
                (found[image],) = predictor.predict([image], top=top_k)
            except TinygrowError as error:
                found[image] = error
    for entry in batch:
        yield (entry, found[entry]) if isinstance(entry, str) else ("", entry)


def _text(image: str, prediction: Prediction) -> str:
    classes = ", ".join(f"{label} {100 * share:.1f} %" for label, share in prediction.top)
    return f"{image}: {classes}"


def _json(image: str, prediction: Prediction) -> str:
    top = [{"label": label, "probability": share} for label, share in prediction.top]
    return json.dumps(
        {
            "image": image,
            "label": prediction.label,
            "probability": prediction.probability,
            "top": top,
        },
        ensure_ascii=False,
    )
