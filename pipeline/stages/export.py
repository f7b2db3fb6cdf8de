"""Stage `export`: the final evaluation, then one self-contained ONNX file."""

from pathlib import Path

from pipeline import params as parameters
from pipeline import paths
from tinygrow.checkpoint import load_checkpoint, require_fit
from tinygrow.data.prepared import load_card, load_split
from tinygrow.files import write_json
from tinygrow.observer import Observer
from tinygrow.products.export import export_onnx
from tinygrow.products.fold import fold_batch_norm
from tinygrow.products.metadata import build_metadata
from tinygrow.products.reference import accuracy, torch_logits
from tinygrow.settings.products import ExportSettings


def run(
    name: str,
    *,
    observer: Observer,
    checkpoint: Path | None = None,
    output: Path | None = None,
) -> None:
    """Write the ONNX file of the model `name` and its figures.

    Here, for the first time, test images are read: no decision of growth or fine-tuning is left.

    Args:
        name: of a block under `models` in `params.yaml`.
        observer: told of progress.
        checkpoint: another one than the fine-tuned, such as a snapshot of growth.
        output: where its file goes; figures are then not written.
    """
    values = parameters.read()
    settings = values.section(name, "export", ExportSettings)
    data = paths.prepared(values.value(name, "data"))
    source = load_checkpoint(checkpoint or paths.finetuned(name))
    card = load_card(data)
    require_fit(source, card, checkpoint or paths.finetuned(name))
    test = load_split(data, "test")

    folded = fold_batch_norm(source.network)
    logits = torch_logits(folded, card, test.images.numpy(), observer)
    percent = accuracy(logits, test.labels.numpy())
    metadata = build_metadata(name, source, card, percent)
    target = output or paths.onnx_model(name)
    export_onnx(folded, card, settings, metadata, target)
    size = target.stat().st_size
    if output is None:
        write_json(
            paths.export_metrics(name),
            {
                "test_accuracy": percent,
                "parameters": int(metadata["parameters"]),
                "multiply_adds": int(metadata["multiply_adds"]),
                "file_bytes": size,
            },
        )
    observer.say(f"{target}: {size:,} bytes, test accuracy {percent:.2f} %")
