"""`predict`: from image files to lines of text, by ONNX Runtime; never imports torch."""

import json
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from pipeline import paths
from tinygrow.deploy.predictor import Prediction, Predictor
from tinygrow.errors import TinygrowError

_BATCH = 64


def lines(
    images: Sequence[str], *, model: str | None, top_k: int, provider: str, as_json: bool
) -> Iterator[str]:
    """Yield one line an image: its most probable classes, as text or as a JSON object.

    Args:
        images: paths of image files.
        model: see `find_model`.
        top_k: how many classes to name.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        as_json: JSON instead of text.

    Raises:
        TinygrowError: there is no such model, or an image cannot be read.
    """
    predictor = Predictor(find_model(model), provider)
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        for image, prediction in zip(batch, predictor.predict(batch, top=top_k), strict=True):
            yield _json(image, prediction) if as_json else _text(image, prediction)


def find_model(model: str | None) -> Path:
    """Return the .onnx file that `model` means.

    Args:
        model: an .onnx file; the name of a model under models/; or nothing: the only one there.

    Raises:
        TinygrowError: there is none, or more than one to choose from.
    """
    products = sorted(Path().glob(str(paths.onnx_model("*"))))
    names = [product.parent.name for product in products]
    if model is None:
        if len(products) == 1:
            return products[0]
        if not products:
            raise TinygrowError(
                f"there is no {paths.onnx_model('NAME')} in {Path.cwd()}; make one (`make demo`)"
                " or name an .onnx file with --model"
            )
        raise TinygrowError(f"--model is not given; it must be one of {', '.join(names)}")
    if model in names:
        return paths.onnx_model(model)
    if Path(model).is_file():
        return Path(model)
    near = get_close_matches(model, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
    raise TinygrowError(f"--model is {model!r}, neither a file nor a model under models/; {remedy}")


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
