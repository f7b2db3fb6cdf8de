"""The finished models of a pipeline folder, one value a model named `<row>-s<seed>`."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline import params, paths
from tinygrow.errors import TinygrowError
from tinygrow.report.history import EpochRow, ExtensionRow, read_json, read_table

LABELS = {
    "tiny": "TINY, grown",
    "random": "same schedule, random neurons",
    "seed": "seed network, never grown",
    "scratch": "full width from scratch",
}
_NAME = re.compile(r"(?P<row>.+)-s(?P<seed>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished model; accuracies in percent.

    Attributes:
        model: its name.
        row: the way it was made.
        seed: of its name.
        test_accuracy: PyTorch's, on the whole test set.
        growth_accuracy: validation accuracy at the end of growth.
        final_accuracy: validation accuracy at the end of fine-tuning.
        parameters: of the finished network.
        multiply_adds: for one image.
        image_passes: of all training.
        statistics_images: read for statistics, besides.
        seconds: of growth and fine-tuning.
        validated: whether its ONNX file passed the gate.
        curve: image passes and validation accuracy over the run.
    """

    model: str
    row: str
    seed: int
    test_accuracy: float
    growth_accuracy: float
    final_accuracy: float
    parameters: int
    multiply_adds: int
    image_passes: int
    statistics_images: int
    seconds: float
    validated: bool
    curve: tuple[tuple[float, float], ...]


def collect(folder: Path) -> tuple[list[Run], list[str]]:
    """Return the finished runs of a pipeline folder, and a line for each thing missing.

    Raises:
        TinygrowError: the folder has no model named `<row>-s<seed>`, or a file is damaged.
    """
    declared = params.read(folder / params.DEFAULT_PATH).names("models")
    names = [name for name in declared if _NAME.fullmatch(name)]
    if not names:
        raise TinygrowError(
            f"{folder / params.DEFAULT_PATH} has no model named <row>-s<seed>, such as tiny-s0;"
            f" it has {', '.join(declared) or 'none'}"
        )
    runs, missing = [], []
    for name in names:
        needed = (
            paths.growth_metrics(name),
            paths.growth_table(name),
            paths.finetune_metrics(name),
            paths.finetune_table(name),
            paths.export_metrics(name),
            paths.validation(name),
        )
        absent = [str(path) for path in needed if not (folder / path).is_file()]
        if absent:
            missing.append(f"model {name}: {', '.join(absent)} not there; run dvc repro")
        else:
            runs.append(_read_run(folder, name))
    found = {run.row for run in runs}
    for row, label in LABELS.items():
        if row not in found:
            missing.append(f"row {row} ({label}): no finished model")
    return runs, missing


def _read_run(folder: Path, name: str) -> Run:
    match = _NAME.fullmatch(name)
    assert match is not None
    grow = read_json(folder / paths.growth_metrics(name))
    finetune = read_json(folder / paths.finetune_metrics(name))
    export = read_json(folder / paths.export_metrics(name))
    validate = read_json(folder / paths.validation(name))
    growth = read_table(folder / paths.growth_table(name), ExtensionRow)
    epochs = read_table(folder / paths.finetune_table(name), EpochRow)
    offset = growth[-1].images_seen if growth else 0
    points = [(row.images_seen, row.validation_accuracy) for row in growth]
    points += [(offset + e.images_seen, e.validation_accuracy) for e in epochs if e.epoch > 0]
    try:
        return Run(
            model=name,
            row=match["row"],
            seed=int(match["seed"]),
            test_accuracy=export["test_accuracy"],
            growth_accuracy=grow["validation_accuracy"],
            final_accuracy=finetune["validation_accuracy"],
            parameters=export["parameters"],
            multiply_adds=export["multiply_adds"],
            image_passes=grow["images_seen"] + finetune["images_seen"],
            statistics_images=grow["statistics_images"],
            seconds=grow["seconds"] + finetune["seconds"],
            validated=validate["passed"],
            curve=tuple((x, y) for x, y in points if y == y),
        )
    except KeyError as error:
        raise TinygrowError(f"the figures of {name} lack {error}; run dvc repro again") from error
