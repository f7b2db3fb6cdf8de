"""`certify`: check the certificate of a model's exact compression; never imports torch."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from pipeline import paths
from tinygrow.certify.check import CertificateVerdict, check_certificate
from tinygrow.errors import TinygrowError

CERTIFICATE, BEFORE, PRODUCT = "certificate.json", "uncompressed.onnx", "fp32.onnx"


def certify(model: str) -> CertificateVerdict:
    """Check the certificate of a model.

    Args:
        model: a name under models/, or a folder that holds the three files, such as a package.

    Raises:
        TinygrowError: there is no such model, or one of its files is missing or broken.
    """
    return check_certificate(*files_of(model))


def files_of(model: str) -> tuple[Path, Path, Path]:
    """Return where certificate, network before and fp32 product of a model are.

    Raises:
        TinygrowError: there is neither such a model nor such a folder.
    """
    folder = paths.model_folder(model)
    if Path(model).name == model and folder.is_dir():
        product = paths.product(model)
        if not product.is_file():
            raise TinygrowError(
                f"{product} does not exist, and a certificate speaks of it; run `dvc repro"
                f" validate@{model}` first"
            )
        return paths.certificate(model), paths.uncompressed(model), product
    folder = Path(model)
    if folder.is_dir():
        product = folder / PRODUCT
        if not product.is_file():  # a folder as models/NAME is
            product = folder / paths.products_folder(model).name / PRODUCT
        return folder / CERTIFICATE, folder / BEFORE, product
    names = sorted(path.name for path in Path().glob(str(paths.model_folder("*"))) if path.is_dir())
    near = get_close_matches(model, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
    raise TinygrowError(f"{model!r} is neither a model under models/ nor a folder; {remedy}")


def lines(found: CertificateVerdict) -> Iterator[str]:
    """Yield a verdict as text."""
    counts = found.counts()
    units = ", ".join(f"{count} {word}" for word, count in counts.items())
    stable = sum(unit.in_float32 for unit in found.units)
    yield f"{found.model or 'the certificate'}: {len(found.units)} units: {units}"
    yield f"  in float32 as well, in any order of summation: {stable}"
    steps = ", ".join(f"{count} {op}" for op, count in found.steps.items())
    yield f"  steps replayed: {steps or 'none; nothing was removed'}"
    yield from (f"  {note}" for note in found.notes)
    yield from (f"  REFUSED: {problem}" for problem in found.problems)
    if found.accepted:
        yield (
            "ACCEPTED: for every uint8 image the fp32 product computes what the network before did,"
            " in real arithmetic"
        )
    else:
        yield "REFUSED: the certificate does not hold"
