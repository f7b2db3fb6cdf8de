"""Time training steps of our engine against plain PyTorch loops, in one run.

`python -m benchmarks.training` trains the growable ResNet-18 on made-up images of CIFAR's shape:
our engine, the loop of PyTorch's tutorials (`benchmarks.plain`) in float32, and that loop with
bfloat16 autocast and channels-last memory. All take the same network, batches of the same size and
the same SGD; warm-up and compilation are not counted; each repeat goes through all of them, so that
a busy moment of the machine hits all. The last line is one JSON object; the exit status is 1 where
a target is missed: on a CPU 1.8 times the plain float32 loop at base width 64, and no slower than
it elsewhere; on an H200 at base width 64 also 30,000 images a second, and 250 epochs within 8
minutes, compilation and evaluation counted.
"""

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.extension import CLASSES, SHAPE, made_up_images
from benchmarks.plain import Pictures, PlainLoop
from benchmarks.timing import Timer, figures, spread, surroundings
from tinygrow.architecture import final_architecture
from tinygrow.errors import TinygrowError
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import TRAINING_PASSES, count_multiply_adds
from tinygrow.observer import Observer
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.network import ResNetSettings
from tinygrow.settings.training import AugmentationSettings, FinetuneSettings, TrainingSettings
from tinygrow.training.batches import DeviceImages
from tinygrow.training.device import pick_device
from tinygrow.training.evaluate import evaluate
from tinygrow.training.finetune import finetune
from tinygrow.training.loop import Trainer

OURS, PLAIN, COARSE = "tinygrow", "plain float32", "plain bfloat16 channels-last"
FULL_WIDTH = 64
CIFAR_IMAGES = 50_000
TIMES_PLAIN = 1.8
IMAGES_PER_SECOND = 30_000.0
EPOCHS = 250
MINUTES = 8.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is wanted of a figure, and what was found."""

    name: str
    wanted: float
    found: float
    holds: bool


class Bench:
    """The network, images and recipe that all sides share.

    Args:
        base_width: channels of the first stage.
        images: in the training set.
        settings: recipe of training and whether it is compiled.
        device: where all runs.
        workers: processes of the plain loop's loader.
    """

    def __init__(
        self,
        *,
        base_width: int,
        images: int,
        settings: FinetuneSettings,
        device: torch.device,
        workers: int,
    ) -> None:
        architecture = final_architecture(ResNetSettings(base_width=base_width), SHAPE, CLASSES)
        self.base_width = base_width
        self.network = build_network(architecture, seed=0)
        self.multiply_adds = count_multiply_adds(self.network, SHAPE)
        self.settings = settings
        self.device = device
        self.timer = Timer(device)
        growth = GrowthSettings(training=settings.training)
        self.stream = made_up_images(images, growth, device)
        self._pictures = Pictures(self.stream.images, settings.training, (0.5,) * 3, (0.25,) * 3)
        self._workers = workers
        self.listener = _Listener()

    def fresh_network(self) -> nn.Module:
        """Return the network as all sides begin with it, in our layout."""
        network = copy.deepcopy(self.network)
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def held_out(self, count: int) -> DeviceImages:
        """Return so many images to be looked at, made as those of the training set are."""
        growth = GrowthSettings(training=self.settings.training)
        return made_up_images(count, growth, self.device).images

    def ours(self) -> Trainer:
        """Return our engine with a network of its own."""
        return Trainer(
            self.fresh_network(),
            self.stream,
            self.settings.training,
            total_epochs=1e6,
            observer=self.listener,
            compile=self.settings.compile,
        )

    def plain(self, *, coarse: bool) -> PlainLoop:
        """Return the plain loop with a network of its own."""
        return PlainLoop(
            copy.deepcopy(self.network),
            self._pictures,
            self.settings.training,
            self.device,
            workers=self._workers,
            coarse=coarse,
        )

    def run_ours(self, trainer: Trainer, steps: int) -> None:
        """Add the seconds of so many steps of our engine to the timer."""
        with self.timer.part(OURS):
            trainer.train(steps * self.settings.training.batch_size / len(self.stream))

    def rates(self, name: str, steps: int) -> list[float]:
        """Return images per second of a side, a repeat each."""
        images = steps * self.settings.training.batch_size
        return [images / seconds for seconds in self.timer.seconds[name]]


class _Listener(Observer):
    """Keeps what is said, with the time."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, str]] = []

    def say(self, line: str) -> None:
        self.heard.append((time.perf_counter(), line))

    @property
    def lines(self) -> list[str]:
        """Return what was said."""
        return [line for _, line in self.heard]


def measure(bench: Bench, steps: int, repeats: int) -> tuple[Trainer, float]:
    """Time all sides in turn; return our trainer, and the seconds its first step took longer.

    That is the compilation, where there is one and no epochs were timed before.
    """
    ours = bench.ours()
    plain = {PLAIN: bench.plain(coarse=False), COARSE: bench.plain(coarse=True)}
    bench.run_ours(ours, 1)
    bench.run_ours(ours, 1)
    first, second = bench.timer.seconds[OURS]
    for name, loop in plain.items():
        loop.run(1, bench.timer, name)
    bench.timer.seconds.clear()
    for _ in range(repeats):
        bench.run_ours(ours, steps)
        for name, loop in plain.items():
            loop.run(steps, bench.timer, name)
    return ours, max(0.0, first - second)


def measure_epochs(bench: Bench, epochs: int) -> dict[str, float]:
    """Fine-tune for some epochs as the pipeline does, and reckon what 250 would take.

    The first epoch holds the compilation. Each ends with a look at 2,000 images, the whole with one
    at 10,000 more, as with CIFAR-10's validation and test images.

    Returns:
        Seconds before the second epoch, of each later epoch (median), of the test, of 250 epochs.
    """
    validation, test = bench.held_out(2_000), bench.held_out(10_000)
    network = bench.fresh_network()
    settings = replace(bench.settings, epochs=epochs)
    listener = _Listener()
    started = time.perf_counter()
    done = finetune(network, bench.stream, validation, settings, observer=listener)
    marks = [at - started for at, line in listener.heard if line.startswith("epoch ")]
    started = time.perf_counter()
    evaluate(done.network, test)
    tested = time.perf_counter() - started
    each = statistics.median(b - a for a, b in pairwise(marks))
    return {
        "epochs": epochs,
        "first": marks[0],
        "each": each,
        "test": tested,
        "all": (marks[-1] if epochs == EPOCHS else marks[0] + (EPOCHS - 1) * each) + tested,
    }


def matrix_rate(device: torch.device, repeats: int = 7) -> float:
    """Return the operations a second of large bfloat16 matrix products (best of the repeats)."""
    size = 8192 if device.type == "cuda" else 2048
    left = torch.randn(size, size, device=device).bfloat16()
    timer = Timer(device)
    for _ in range(repeats):
        with timer.part("product"):
            left @ left
    return 2 * size**3 / min(timer.seconds["product"])


def profiled(bench: Bench, trainer: Trainer, steps: int) -> dict[str, Any]:
    """Print where the time of our steps goes; return the largest parts, in percent.

    On a GPU also the share of the wall time in which it was busy: if that is small, the launching
    of kernels bounds the speed; if not, the kernels that are named do.
    """
    gpu = bench.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if gpu else [])
    with profile(activities=activities) as found:
        started = time.perf_counter()
        trainer.train(steps * bench.settings.training.batch_size / len(bench.stream))
        wall = 1e6 * (time.perf_counter() - started)
    kind = "device" if gpu else "cpu"
    events = found.key_averages()
    print(events.table(sort_by=f"self_{kind}_time_total", row_limit=15, max_name_column_width=60))
    times = {event.key: getattr(event, f"self_{kind}_time_total") for event in events}
    total = sum(times.values())
    largest = sorted(times, key=times.__getitem__, reverse=True)[:10]
    told: dict[str, Any] = {name: round(100 * times[name] / total, 1) for name in largest}
    return {"percent": told, "busy_percent": round(100 * total / wall, 1) if gpu else None}


def targets(
    bench: Bench, ratio: float, speed: float, epochs: dict[str, float] | None
) -> list[Target]:
    """Return what is wanted on this device at this base width, and whether it holds."""
    full = bench.base_width >= FULL_WIDTH
    if bench.device.type == "cpu":
        wanted = TIMES_PLAIN if full else 1.0
        return [Target(f"times {PLAIN}", wanted, ratio, ratio >= wanted)]
    found = [Target(f"times {PLAIN}", 1.0, ratio, ratio >= 1.0)]
    if full and "H200" in torch.cuda.get_device_name(bench.device):
        found.append(
            Target("images a second", IMAGES_PER_SECOND, speed, speed >= IMAGES_PER_SECOND)
        )
        if epochs is not None:
            minutes = epochs["all"] / 60
            found.append(Target("minutes", MINUTES, minutes, minutes <= MINUTES))
    return found


def skipped(device: torch.device) -> list[str]:
    """Return what is not measured here, and why."""
    if device.type == "cuda":
        return []
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    why = f"SKIPPED: the device is {device.type}, PyTorch sees {cards} CUDA devices here"
    rows = (f"{IMAGES_PER_SECOND:,.0f} images a second", f"{EPOCHS} epochs within {MINUTES:g} min")
    return [f"{row}: {why}" for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.images < chosen.batch_size or chosen.steps < 1 or chosen.repeats < 1:
        parser.error("--images must be at least --batch-size; --steps and --repeats at least 1")
    if chosen.epochs is not None and chosen.epochs < 2 and chosen.epochs != 0:
        parser.error("--epochs must be 0 or at least 2: the first one holds the compilation")
    try:
        device = pick_device(chosen.device)
        workers = _workers(device) if chosen.workers is None else chosen.workers
        bench = Bench(
            base_width=chosen.base_width,
            images=chosen.images,
            settings=_settings(chosen),
            device=device,
            workers=workers,
        )
        around = surroundings(device)
        around |= {"torchvision": version("torchvision"), "workers": workers}
        epochs = chosen.epochs if chosen.epochs is not None else 3 * (device.type == "cuda")
        # Compiled from nothing, as on a machine that has never done it.
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            long = measure_epochs(bench, epochs) if epochs else None
            trainer, compiling = measure(bench, chosen.steps, chosen.repeats)
            parts = profiled(bench, trainer, chosen.steps) if chosen.profile else None
    except TinygrowError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    rates = {name: bench.rates(name, chosen.steps) for name in (OURS, PLAIN, COARSE)}
    ratios = {
        name: [a / b for a, b in zip(rates[OURS], rates[name], strict=True)]
        for name in (PLAIN, COARSE)
    }
    speed = statistics.median(rates[OURS])
    matrices = matrix_rate(device)
    operations = 2 * TRAINING_PASSES * bench.multiply_adds * speed
    judged = targets(bench, statistics.median(ratios[PLAIN]), speed, long)
    lines = [
        f"ResNet-18 of base width {chosen.base_width}, batches of {chosen.batch_size},"
        f" {chosen.steps} steps a repeat, n = {chosen.repeats}, {workers} loader workers",
        ", ".join(f"{key} {value}" for key, value in around.items()),
        f"ours: {trainer.described}",
        *bench.listener.lines,
        "",
        *(f"{name:30} {spread(values)} images/s" for name, values in rates.items()),
        *(f"times {name:24} {spread(values)}" for name, values in ratios.items()),
        f"first step {compiling:.1f} s longer; {100 * operations / matrices:.1f} % of the"
        f" {matrices / 1e12:.2f} T operations/s of large bfloat16 matrix products here",
    ]
    if long is not None:
        how = "measured" if epochs == EPOCHS else f"projected from {epochs}"
        lines.append(f"{EPOCHS} epochs: {long['all'] / 60:.1f} min ({how})")
    lines += [
        f"{t.name}: {t.found:.4g}, wanted {t.wanted:g}: {'holds' if t.holds else 'MISSED'}"
        for t in judged
    ]
    lines += skipped(device)
    print("\n".join(lines), end="\n\n")
    result = {
        "benchmark": "training",
        "arguments": vars(chosen),
        **around,
        "engine": trainer.described,
        "images_per_second": {name: figures(values) for name, values in rates.items()},
        "ratios": {name: figures(values) for name, values in ratios.items()},
        "first_step_longer_seconds": round(compiling, 2),
        "multiply_adds": bench.multiply_adds,
        "matrix_operations_per_second": matrices,
        "share_of_matrix_rate_percent": round(100 * operations / matrices, 2),
        "epochs": long,
        "projected": long is not None and epochs != EPOCHS,
        "profile": parts,
        "skipped": skipped(device),
        "targets": [asdict(target) for target in judged],
        "holds": all(target.holds for target in judged),
    }
    print(json.dumps(result))
    return 0 if result["holds"] else 1


def _settings(chosen: argparse.Namespace) -> FinetuneSettings:
    return FinetuneSettings(
        compile=chosen.compile,
        training=TrainingSettings(
            learning_rate=0.02,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            batch_size=chosen.batch_size,
            precision=chosen.precision,
            augmentation=AugmentationSettings(crop_padding=4, flip="random"),
        ),
    )


def _workers(device: torch.device) -> int:
    """Return how many workers a careful user of the plain loop would take."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 16) if device.type == "cuda" else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--base-width", type=int, default=64, help="channels of the first stage")
    parser.add_argument("--batch-size", type=int, default=128, help="images a step")
    parser.add_argument("--steps", type=int, default=2, help="of each side in a repeat")
    parser.add_argument("--repeats", type=int, default=5, help="timed, after a warm-up")
    parser.add_argument("--images", type=int, default=CIFAR_IMAGES, help="in the training set")
    parser.add_argument("--workers", type=int, help="of the plain loops' loader")
    parser.add_argument(
        "--epochs", type=int, help="of fine-tuning, timed as a whole; 250: nothing is projected"
    )
    parser.add_argument("--precision", default="auto", help="of ours: auto, float32 or bfloat16")
    parser.add_argument("--compile", default="auto", help="of ours: auto, on or off")
    parser.add_argument("--profile", action="store_true", help="say where our time goes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
