"""Speed of the ONNX products against PyTorch at full width, judged.

`python -m benchmarks.products` builds ResNet-18 in the form of this project (32 x 32 images, base
width 64, random weights: speed does not hang on them), makes its fp32, fp16 and int8 files, and
times one batch in turns: ONNX Runtime on each file; PyTorch in float32 on the network as it is
trained and on the one with BatchNorm folded, each eager in two layouts and, with `--compile`,
compiled. All take uint8 images and leave float32 logits in the CPU's memory.

To hold, at batch 64 on two cores: fp32 at least 1.3 times and int8 at least 4 times as many images
a second as the best float32 eager layout of the network as it is trained. The folded network, which
PyTorch users rarely have, is told beside it. The last line is one JSON object with `holds`; the
exit status is 1 where a target is missed.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from tinygrow.architecture import final_architecture
from tinygrow.benchmark.contenders import CHANNELS_LAST, EAGER, onnx_contenders, torch_contenders
from tinygrow.benchmark.document import remarks, surroundings, table
from tinygrow.benchmark.measure import Cell, Plan, measure
from tinygrow.data.prepared import DataCard
from tinygrow.deploy.contract import KEYS
from tinygrow.networks.build import build_network
from tinygrow.observer import Observer
from tinygrow.products.export import export_onnx
from tinygrow.products.fold import fold_batch_norm
from tinygrow.products.variants import Calibration, write_fp16, write_int8
from tinygrow.settings.network import ResNetSettings
from tinygrow.settings.products import ExportSettings, QuantizationSettings

TARGETS = {"fp32": 1.3, "int8": 4.0}
FOLDED = "folded"
SHAPE = (3, 32, 32)
CARD = DataCard(
    name="noise",
    source="random numbers",
    classes=tuple(map(str, range(10))),
    shape=SHAPE,
    mean=(0.49, 0.48, 0.45),
    std=(0.25, 0.24, 0.26),
    counts={},
)


def write_products(network: nn.Module, folder: Path) -> list[tuple[str, Path]]:
    """Write the three files as the export stage does; return precision and path of each.

    Every layer is in int8: with random weights no budget of answers means anything.
    """
    paths = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    metadata = dict.fromkeys(KEYS, "benchmark")
    export_onnx(fold_batch_norm(network), CARD, ExportSettings(), metadata, paths["fp32"])
    fp32 = onnx.load(paths["fp32"])
    noise = np.random.default_rng(0).integers(0, 256, (64, *SHAPE), np.uint8)
    calibration = Calibration(images=noise, judged=noise, labels=np.zeros(64, np.int64))
    write_fp16(fp32, paths["fp16"])
    settings = QuantizationSettings(keep_float="none")
    write_int8(fp32, calibration, settings, paths["int8"], Observer())
    return list(paths.items())


def judge(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return, for each product, its speed as a multiple of the best eager layout's.

    Args:
        cells: of one batch size.
    """
    rates = {cell.variant: cell.images_per_second for cell in cells if cell.images_per_second}
    result: dict[str, Any] = {}
    for suffix, key in (("", "trained"), (f", {FOLDED}", FOLDED)):
        best = max(rates[f"{EAGER}{suffix}"], rates[f"{CHANNELS_LAST}{suffix}"])
        result[key] = {
            precision: round(rates[precision] / best, 3)
            for precision in ("fp32", "fp16", "int8")
            if precision in rates
        }
    result["holds"] = {
        precision: result["trained"].get(precision, 0.0) >= target
        for precision, target in TARGETS.items()
    }
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--base-width", type=int, default=64, metavar="CHANNELS")
    parser.add_argument("--batch", type=int, default=64, metavar="IMAGES")
    parser.add_argument("--runs", type=int, default=200, help="timed calls of each contender")
    parser.add_argument("--minutes", type=float, default=0.0, help="for everything; 0: no limit")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    chosen = parser.parse_args(arguments)
    if min(chosen.base_width, chosen.batch, chosen.runs, chosen.threads) < 1:
        parser.error("widths, batches, runs and threads must be at least 1")
    torch.set_num_threads(chosen.threads)
    around = surroundings(chosen.threads)
    settings = ResNetSettings(base_width=chosen.base_width)
    network = build_network(final_architecture(settings, SHAPE, len(CARD.classes)), 0).eval()
    plan = Plan(batches=(chosen.batch,), runs=chosen.runs, warm_up=8, seconds=60 * chosen.minutes)
    with tempfile.TemporaryDirectory() as folder:
        products = write_products(network, Path(folder))
        contenders, absent = onnx_contenders(products, ["cpu"], chosen.threads)
        contenders += torch_contenders(network, CARD, "cpu", compiled=chosen.compile)
        folded = fold_batch_norm(network)
        contenders += torch_contenders(folded, CARD, "cpu", compiled=False, note=FOLDED)
        cells = measure(contenders, SHAPE, plan)
    result = {"benchmark": "products", "arguments": vars(chosen), **around, **judge(cells)}
    result["medians_ms"] = {cell.variant: cell.p50_ms for cell in cells}
    result["runs"] = {cell.variant: cell.runs for cell in cells}
    print(", ".join(f"{key} {value}" for key, value in around.items()), end="\n\n")
    print(table(cells), end="\n\n")
    for line in remarks(cells, absent):
        print(line)
    print(json.dumps(result))
    return 0 if all(result["holds"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
