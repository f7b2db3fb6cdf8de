"""The finished cells of the paper's experiment, from one or more pipeline folders."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from pipeline import params, paths
from pipeline.sections.network import network_settings
from tinygrow.architecture import final_architecture, seed_architecture
from tinygrow.data.prepared import load_card
from tinygrow.errors import TinygrowError
from tinygrow.growth.log import ExtensionRow
from tinygrow.growth.spent import Spent, growth_spent, training_spent
from tinygrow.report.history import read_json, read_table
from tinygrow.settings.growth import GrowthSettings

SCRATCH = "scratch"
NEVER = "none"
_NOT_BEGUN = "not begun, or in growth"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Design:
    """What a cell was made by, apart from its seed.

    Attributes:
        data: name of the data set.
        network: in words.
        method: of growth; `scratch` at full width from the start, `none` where nothing ever grows.
        start: share of the inner widths; 1 from scratch.
        epochs_between: extensions (the paper's Delta t); 0 from scratch.
    """

    data: str
    network: str
    method: str
    start: float
    epochs_between: float

    @property
    def setting(self) -> tuple[str, str]:
        """Data and network: what cells must share to be compared."""
        return self.data, self.network

    @property
    def column(self) -> tuple[float, float]:
        """Start and Delta t."""
        return self.start, self.epochs_between


@dataclass(frozen=True, slots=True)
class Point:
    """Where a cell stood, from its beginning.

    Attributes:
        epochs: of training.
        images: image passes of training.
        seconds: of growth and training, evaluation not among them.
        multiply_adds: of training and of growth; NaN where growth's own could not be counted.
        accuracy: on validation images, in percent.
    """

    epochs: float
    images: float
    seconds: float
    multiply_adds: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One finished model; accuracies in percent, costs in multiply-adds.

    Attributes:
        model: its name.
        design: without the seed.
        seed: of its block.
        growth_accuracy: on validation images, at the end of growth; None from scratch.
        growth_test_accuracy: likewise on test images; None where it was not measured.
        final_accuracy: on validation images, at the end.
        test_accuracy: on test images, at the end.
        epochs: after growth.
        converged: by the planned number of these; None where that was not asked.
        parameters: of the finished network.
        growth_seconds: of growth, with the training in it.
        finetune_seconds: of training after it.
        growth_training: of training in growth.
        finetuning: of training after it.
        growth_own: of moments, linear algebra, search and surgery; None where data or settings
            from which they are counted are not there.
        validated: whether the gate was passed.
        machine: that the gate ran on.
        grown_at: index in `curve` of the end of growth.
        curve: from the seed network to the end.
    """

    model: str
    design: Design
    seed: int
    growth_accuracy: float | None
    growth_test_accuracy: float | None
    final_accuracy: float
    test_accuracy: float
    epochs: int
    converged: bool | None
    parameters: int
    growth_seconds: float
    finetune_seconds: float
    growth_training: float
    finetuning: float
    growth_own: float | None
    validated: bool
    machine: str
    grown_at: int
    curve: tuple[Point, ...]

    @property
    def seconds(self) -> float:
        """Of all of it."""
        return self.growth_seconds + self.finetune_seconds

    @property
    def multiply_adds(self) -> float:
        """Of training and growth; NaN where growth's own are not known."""
        own = math.nan if self.growth_own is None else self.growth_own
        return self.growth_training + self.finetuning + own


@dataclass(frozen=True, slots=True, kw_only=True)
class _GrowthRow:
    extension: int
    depth: int | None
    widths: tuple[int, ...]
    multiply_adds: int
    validation_accuracy: float
    epochs: float
    images_seen: float
    statistics_images: float
    seconds_statistics: float
    seconds_solve: float
    seconds_search: float
    seconds_surgery: float
    seconds_training: float

    @property
    def logged(self) -> ExtensionRow:
        """The row as growth wrote it, as far as it matters here."""
        values = {k: 0.0 if v != v else v for k, v in asdict(self).items()}
        counts = {key: int(values[key]) for key in ("images_seen", "statistics_images")}
        accuracy = {"validation_accuracy": self.validation_accuracy}
        known = values | counts | accuracy
        return ExtensionRow(sweep=0, parameters=0, validation_loss=math.nan, **known)


@dataclass(frozen=True, slots=True, kw_only=True)
class _EpochRow:
    epoch: int
    images_seen: float
    validation_accuracy: float
    seconds: float


def collect(folders: Sequence[Path]) -> tuple[list[Cell], list[str]]:
    """Return the finished cells of pipeline folders, and a line for each that is missing.

    Folders of one name, such as those of several clones, may each hold some of the same cells: one
    that several have finished counts once, as the first has it. A file counts as the cells that
    `write_cells` wrote to it.

    Raises:
        TinygrowError: a file is damaged, or folders of one name differ in a cell's settings.
    """
    found: dict[tuple[str, str], Cell] = {}
    blocks: dict[tuple[str, str], tuple[Any, Path]] = {}
    states: dict[tuple[str, str], str] = {}
    for folder in folders:
        if folder.is_file():
            for cell in read_cells(folder):
                found.setdefault(("", cell.model), cell)
            continue
        values = params.read(folder / params.DEFAULT_PATH)
        for name in values.names("models"):
            key = (folder.resolve().name, name)
            block = values.tree["models"][name]
            known, where = blocks.setdefault(key, (block, folder))
            if known != block:
                raise TinygrowError(
                    f"{where} and {folder} have different settings for {name}; collect one of them"
                )
            state = _state(folder, name)
            if state:
                if states.get(key, _NOT_BEGUN) == _NOT_BEGUN:
                    states[key] = state
            elif key not in found:
                found[key] = _read_cell(folder, values, name)
    kept = {cell.model for key, cell in found.items() if not key[0]}
    cells = [cell for key, cell in found.items() if not (key[0] and key[1] in kept)]
    missing = [
        f"{name}: {state}"
        for (folder_name, name), state in states.items()
        if (folder_name, name) not in found and name not in kept
    ]
    return sorted(cells, key=lambda cell: (cell.design, cell.seed, cell.model)), missing


def write_cells(cells: Sequence[Cell]) -> str:
    """Return cells as lines of JSON, from which `collect` reads them."""
    return "".join(json.dumps(asdict(cell)) + "\n" for cell in cells)


def read_cells(path: Path) -> list[Cell]:
    """Return what `write_cells` wrote.

    Raises:
        TinygrowError: the file is no such file.
    """
    cells = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            value = json.loads(line)
            value["design"] = Design(**value["design"])
            value["curve"] = tuple(Point(**point) for point in value["curve"])
            cells.append(Cell(**value))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TinygrowError(f"{path} holds no cells ({error}); give pipeline folders") from error
    return cells


def _state(folder: Path, name: str) -> str:
    """Return what is missing of a model, in words; nothing where it is finished."""
    stages = {
        "grown": (paths.growth_metrics(name), paths.growth_table(name)),
        "fine-tuned": (paths.finetune_metrics(name), paths.finetune_table(name)),
        "exported": (paths.export_metrics(name),),
        "validated": (paths.validation(name),),
    }
    done = ""
    for stage, files in stages.items():
        if not all((folder / file).is_file() for file in files):
            return f"{done}, not {stage}" if done else _NOT_BEGUN
        done = stage
    return ""


def _read_cell(folder: Path, values: params.Params, name: str) -> Cell:
    grow = read_json(folder / paths.growth_metrics(name))
    finetune = read_json(folder / paths.finetune_metrics(name))
    export = read_json(folder / paths.export_metrics(name))
    rows = [row.logged for row in read_table(folder / paths.growth_table(name), _GrowthRow)]
    epochs = read_table(folder / paths.finetune_table(name), _EpochRow)
    if not rows:
        raise TinygrowError(f"{folder / paths.growth_table(name)} has no rows; grow {name} again")
    design = _design(values, name)
    spent, complete = _spent(folder, values, name, rows)
    growth = sum(spent, Spent())
    after = [training_spent(e.images_seen, rows[-1].multiply_adds).total for e in epochs]
    try:
        return Cell(
            model=name,
            design=design,
            seed=values.value(name, "seed"),
            growth_accuracy=None if design.method == SCRATCH else grow["validation_accuracy"],
            growth_test_accuracy=None,
            final_accuracy=finetune["validation_accuracy"],
            test_accuracy=export["test_accuracy"],
            epochs=finetune["epochs"],
            converged=finetune.get("converged"),
            parameters=export["parameters"],
            growth_seconds=grow["seconds"],
            finetune_seconds=finetune["seconds"],
            growth_training=growth.training,
            finetuning=after[-1] if after else 0.0,
            growth_own=growth.growth if complete else None,
            validated=read_json(folder / paths.validation(name))["passed"],
            machine=_machine(folder / paths.sidecar(name)),
            grown_at=len(rows) - 1,
            curve=_curve(rows, spent if complete else None, epochs, after),
        )
    except KeyError as error:
        raise TinygrowError(f"the figures of {name} lack {error}; run dvc repro again") from error


def _design(values: params.Params, name: str) -> Design:
    block = values.tree["models"][name]
    network, growth = block["architecture"], block["growth"]
    start = float(network["start"]) if isinstance(network, Mapping) else math.nan
    scratch = start == 1.0
    return Design(
        data=block["data"],
        network=_network(network),
        method=SCRATCH if scratch else growth["method"],
        start=start,
        epochs_between=0.0 if scratch else float(growth["epochs_between"]),
    )


def _network(section: Any) -> str:
    if not isinstance(section, Mapping):
        return str(section)
    shape = {"base_width": "base width", "hidden": "hidden", "network": ""}
    words = [f"{word} {section[key]}".strip() for key, word in shape.items() if key in section]
    return " ".join([str(section["kind"]), *words])


def _spent(
    folder: Path, values: params.Params, name: str, rows: Sequence[ExtensionRow]
) -> tuple[list[Spent], bool]:
    """Return what each row of growth cost, and whether growth's own part could be counted."""
    data, details = paths.prepared(values.value(name, "data")), paths.growth_details(name)
    if (folder / data).is_file() and (folder / details).is_file():
        card = load_card(folder / data)
        settings = network_settings(values, name)
        final = final_architecture(settings, card.shape, len(card.classes))
        entries = read_json(folder / details)["extensions"]
        spent = growth_spent(
            rows,
            {entry["extension"]: len(entry["losses"]) for entry in entries},
            seed_architecture(settings, final),
            values.section(name, "growth", GrowthSettings),
            card.counts["train"],
        )
        return spent, True
    images = [0, *(row.images_seen for row in rows)]
    spent = [
        training_spent(row.images_seen - before, row.multiply_adds)
        for before, row in zip(images, rows, strict=False)
    ]
    return spent, not rows[-1].statistics_images and rows[-1].widths == rows[0].widths


def _curve(
    rows: Sequence[ExtensionRow],
    spent: Sequence[Spent] | None,
    epochs: Sequence[_EpochRow],
    after: Sequence[float],
) -> tuple[Point, ...]:
    """Return the points of growth, then those of the epochs that were looked at."""
    costs = [s.total for s in spent] if spent is not None else [math.nan] * len(rows)
    totals = list(accumulate(costs))
    seconds = list(accumulate(row.seconds for row in rows))
    points = [
        Point(row.epochs, row.images_seen, second, total, row.validation_accuracy)
        for row, second, total in zip(rows, seconds, totals, strict=True)
    ]
    end, clock = points[-1], 0.0
    for row, cost in zip(epochs, after, strict=True):
        clock += 0.0 if math.isnan(row.seconds) else row.seconds
        if row.epoch > 0 and not math.isnan(row.validation_accuracy):
            points.append(
                Point(
                    end.epochs + row.epoch,
                    end.images + row.images_seen,
                    end.seconds + clock,
                    end.multiply_adds + cost,
                    row.validation_accuracy,
                )
            )
    return tuple(points)


def _machine(sidecar: Path) -> str:
    machine = read_json(sidecar).get("machine", {}) if sidecar.is_file() else {}
    return ", ".join(f"{key} {value}" for key, value in machine.items()) or "not recorded"
