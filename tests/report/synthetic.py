"""A made-up run, written with the exact columns of the stages."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GROWTH_COLUMNS = [
    "extension",
    "sweep",
    "depth",
    "site",
    "width_before",
    "width_after",
    "widths",
    "parameters",
    "multiply_adds",
    "bottleneck_before",
    "bottleneck_predicted",
    "bottleneck_after",
    "largest_singular_value",
    "singular_values_kept",
    "singular_values_dropped",
    "power_kept",
    "power_dropped",
    "sign",
    "amplitude",
    "rejected",
    "loss_before",
    "loss_after",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "batch_size",
    "epochs",
    "images_seen",
    "statistics_images",
    "seconds_statistics",
    "seconds_solve",
    "seconds_search",
    "seconds_surgery",
    "seconds_training",
]
FINETUNE_COLUMNS = [
    "epoch",
    "images_seen",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "seconds",
    "images_per_second",
]


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_run(
    folder: Path,
    *,
    method: str = "tiny",
    depths: Sequence[int] = (2, 4, 7, 9),
    start: Sequence[int] = (4, 4, 8, 8),
    final: Sequence[int] = (16, 16, 32, 32),
    sweeps: int = 4,
    epochs_between: float = 0.25,
    finetune_epochs: int = 10,
    spectrum: int = 60,
    train_images: int = 1000,
) -> dict[str, Path]:
    """Write growth.csv, growth.json and finetune.csv of a run whose numbers follow simple laws."""
    paths = {n: folder / n for n in ("growth.csv", "growth.json", "finetune.csv")}
    widths = list(start)
    rows: list[dict[str, Any]] = [
        {
            "extension": 0,
            "widths": " ".join(map(str, widths)),
            "parameters": 1000 + 40 * sum(widths),
            "multiply_adds": 9000 * sum(widths),
            "validation_loss": 2.3,
            "validation_accuracy": 10.5,
            "batch_size": 32,
            "epochs": 0,
            "images_seen": 0,
        }
    ]
    details = []
    number = 0
    for sweep in range(1, sweeps + 1):
        for i, depth in enumerate(depths):
            number += 1
            before = widths[i]
            added = 0 if method == "none" else (final[i] - start[i]) // sweeps
            widths[i] += added
            level = 1 - math.exp(-number / 6)
            row: dict[str, Any] = {
                "extension": number,
                "sweep": sweep,
                "depth": depth,
                "site": f"stages.{i // 2}.block{i % 2}.conv1",
                "width_before": before,
                "width_after": widths[i],
                "widths": " ".join(map(str, widths)),
                "parameters": 1000 + 40 * sum(widths),
                "multiply_adds": 9000 * sum(widths),
                "train_loss": round(2.3 * math.exp(-number / 7) + 0.05, 4),
                "train_accuracy": round(10 + 84 * level, 2),
                "validation_loss": round(2.2 * math.exp(-number / 7.5) + 0.1, 4),
                "validation_accuracy": round(10.5 + 80 * level + math.sin(number), 2),
                "batch_size": 32 + number,
                "epochs": number * epochs_between,
                "images_seen": int(number * epochs_between * train_images),
                "seconds_training": 1.5,
            }
            values: list[float] = []
            if method in ("tiny", "gradmax"):
                values = [0.5 / sweep * (r + 1) ** -1.2 for r in range(spectrum)]
                row |= {
                    "largest_singular_value": values[0],
                    "singular_values_kept": added,
                    "singular_values_dropped": spectrum - added,
                    "power_kept": sum(v * v for v in values[:added]),
                    "power_dropped": sum(v * v for v in values[added:]),
                    "statistics_images": 200 * number,
                    "seconds_statistics": 0.5,
                    "seconds_solve": 0.25,
                }
            if method == "tiny":
                row |= {
                    "bottleneck_before": round(4.0 / (sweep + i), 5),
                    "bottleneck_predicted": round(3.4 / (sweep + i), 5),
                    "bottleneck_after": round(3.5 / (sweep + i), 5),
                }
            if method != "none":
                chosen = 2.0 ** -(1 + (number * 7) % 5)
                rejected = number == 7
                amplitudes = [0.0, *(2.0**k for k in range(-27, 0))]
                losses = [1 - 0.2 * a / chosen + 0.1 * (a / chosen) ** 2 for a in amplitudes]
                if method == "gradmax":
                    chosen, rejected = 1e-3, False
                    amplitudes, losses = [0.0, chosen], [1.0, 1.0 + 1e-9]
                row |= {
                    "sign": 1,
                    "amplitude": 0 if rejected else chosen,
                    "rejected": int(rejected),
                    "loss_before": 1.0,
                    "loss_after": min(losses),
                    "seconds_search": 0.125,
                    "seconds_surgery": 0.01,
                }
                details.append(
                    {
                        "extension": number,
                        "depth": depth,
                        "site": row["site"],
                        "singular_values": values,
                        "kept": added,
                        "amplitudes": amplitudes,
                        "losses": losses,
                        "chosen": row["amplitude"],
                    }
                )
            rows.append(row)
    write_csv(paths["growth.csv"], GROWTH_COLUMNS, rows)
    paths["growth.json"].write_text(json.dumps({"extensions": details}))
    epochs = [
        {
            "epoch": e,
            "images_seen": e * train_images,
            "learning_rate": 0.1,
            "train_loss": "" if e == 0 else round(0.3 / e, 4),
            "train_accuracy": "" if e == 0 else round(97 - 3 / e, 2),
            "validation_loss": round(0.35 / (e + 1), 4),
            "validation_accuracy": round(96.5 - 6 / (e + 1), 2),
            "seconds": 2.0,
            "images_per_second": 500,
        }
        for e in range(finetune_epochs + 1)
    ]
    write_csv(paths["finetune.csv"], FINETUNE_COLUMNS, epochs)
    return paths
