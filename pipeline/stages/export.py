"""Stage `export`: the final evaluation, then one self-contained ONNX file a precision."""

from dataclasses import replace
from pathlib import Path

import onnx

from pipeline import params as parameters
from pipeline import paths
from tinygrow.checkpoint import load_checkpoint, require_fit
from tinygrow.data.prepared import load_card, load_split
from tinygrow.errors import TinygrowError
from tinygrow.files import atomic_folder, write_json
from tinygrow.observer import Observer
from tinygrow.products.export import export_onnx
from tinygrow.products.fold import fold_batch_norm
from tinygrow.products.metadata import build_metadata
from tinygrow.products.reference import accuracy, torch_logits
from tinygrow.products.variants import choose_images, write_fp16, write_int8
from tinygrow.settings.products import ExportSettings


def run(
    name: str,
    *,
    observer: Observer,
    checkpoint: Path | None = None,
    output: Path | None = None,
) -> None:
    """Write the ONNX files of the model `name` and its figures.

    Here, for the first time, test images are read: no decision of growth or fine-tuning is left,
    and none of export looks at them.

    Args:
        name: of a block under `models` in `params.yaml`.
        observer: told of progress.
        checkpoint: another one than the compressed, such as a snapshot of growth.
        output: where its file goes, in fp32 alone; figures are then not written.
    """
    values = parameters.read()
    settings = values.section(name, "export", ExportSettings)
    data = paths.prepared(values.value(name, "data"))
    seed = values.value(name, "seed")
    source = load_checkpoint(checkpoint or paths.compressed(name))
    card = load_card(data)
    require_fit(source, card, checkpoint or paths.compressed(name))
    test = load_split(data, "test")

    folded = fold_batch_norm(source.network)
    logits = torch_logits(folded, card, test.images.numpy(), observer)
    percent = accuracy(logits, test.labels.numpy())
    # Its figures are those of what is shipped.
    metadata = build_metadata(name, replace(source, network=folded), card, percent)
    told = f"test accuracy {percent:.2f} %"
    if output is not None:
        export_onnx(folded, card, settings, metadata, output)
        observer.say(f"{output}: {output.stat().st_size:,} bytes, {told}")
        return
    with atomic_folder(paths.exported_folder(name)) as folder:
        export_onnx(folded, card, settings, metadata, folder / paths.exported(name, "fp32").name)
        failures = _others(folder, name, settings, data, seed, observer)
        if failures:
            write_json(folder / paths.export_failures(name).name, failures)
        sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.onnx"))}
    write_json(
        paths.export_metrics(name),
        {
            "test_accuracy": percent,
            "parameters": int(metadata["parameters"]),
            "multiply_adds": int(metadata["multiply_adds"]),
            "file_bytes": sizes[paths.exported(name, "fp32").name],
        },
    )
    files = ", ".join(f"{file} {size:,} bytes" for file, size in sizes.items())
    observer.say(f"{paths.exported_folder(name)}: {files}; {told}")


def _others(
    folder: Path,
    name: str,
    settings: ExportSettings,
    data: Path,
    seed: int,
    observer: Observer,
) -> dict[str, str]:
    """Write what is made from the fp32 file; return what could not be made, with the reason.

    Whether that is a failure the gate decides, which knows the products that are required.
    """
    fp32 = onnx.load(folder / paths.exported(name, "fp32").name)
    failures: dict[str, str] = {}
    for precision in settings.precisions:
        path = folder / paths.exported(name, precision).name
        try:
            if precision == "fp16":
                write_fp16(fp32, path)
            elif precision == "int8":
                images = choose_images(
                    load_split(data, "train"),
                    load_split(data, "validation"),
                    settings.int8.calibration_images,
                    seed,
                )
                write_int8(fp32, images, settings.int8, path, observer)
        except TinygrowError as error:
            observer.say(f"{precision} is not made: {error}")
            failures[precision] = str(error)
    return failures
