"""Time the parts of one extension against the training around it.

`python -m benchmarks.extension` widens the growable residual network once at each chosen depth with
growth's own `extend`, on made-up images of CIFAR's shape, and prints seconds as median (smallest
to largest) of the repeats; its last line is one JSON object. Every repeat starts from the same
network and goes through all depths, so that a busy moment of the machine hits all of them.
With `--model` the settings of growth are those of a model of params.yaml, and growth's share of the
time is to be at most 15 % with an epoch between extensions: `holds`, and the exit status.
"""

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.timing import Timer, figures, spread, surroundings
from pipeline import params
from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.data.prepared import DataCard, Split
from tinygrow.errors import TinygrowError
from tinygrow.growth.extend import extend
from tinygrow.growth.schedule import neurons_per_extension
from tinygrow.growth.sites import Site, sites_of
from tinygrow.networks.build import build_network
from tinygrow.settings.growth import GrowthSettings, StatisticsSettings
from tinygrow.settings.network import ResNetSettings
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.device import pick_device
from tinygrow.training.loop import Trainer

PARTS = ("statistics", "solve", "search", "surgery", "rest")
"""Of an extension, named as the growth log's columns (`seconds_statistics`, ...)."""
EPOCHS = (0.25, 1.0)
LARGEST_SHARE = 15.0
"""Percent that an extension may take of itself and an epoch, with a modern model's settings."""
SHAPE = (3, 32, 32)
CLASSES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One depth.

    Attributes:
        site: where the network widens.
        width: before.
        added: neurons.
        final: width at the end of growth.
    """

    site: Site
    width: int
    added: int
    final: int


@dataclass(slots=True)
class Measured:
    """What the repeats gave at one depth.

    Attributes:
        case: the depth.
        timer: holds the seconds of each part and each length of training, an entry a repeat.
        images: of the moments.
        search_images: of the line search.
        search_losses: amplitudes tried, in the last repeat.
    """

    case: Case
    timer: Timer
    images: int = 0
    search_images: int = 0
    search_losses: int = 0

    def growth(self) -> list[float]:
        """Return the seconds of all parts together, a repeat."""
        return [sum(times) for times in zip(*map(self.timer.seconds.get, PARTS), strict=True)]

    def share(self, epochs: float) -> list[float]:
        """Return growth's percentage of the time of growth and that much training, a repeat."""
        pairs = zip(self.growth(), self.timer.seconds[_training(epochs)], strict=True)
        return [100 * a / (a + b) for a, b in pairs]


class Bench:
    """A network, images and settings to be measured again and again.

    Args:
        base_width: channels of the first stage.
        start: share of the final middle widths.
        extensions: into how many steps growth is cut.
        images: in the training set.
        settings: of growth.
        device: where all runs.
    """

    def __init__(
        self,
        *,
        base_width: int,
        start: float,
        extensions: int,
        images: int,
        settings: GrowthSettings,
        device: torch.device,
    ) -> None:
        network = ResNetSettings(base_width=base_width, start=start)
        final = final_architecture(network, SHAPE, CLASSES)
        self.architecture = seed_architecture(network, final)
        self.settings = settings
        self.device = device
        self.network = build_network(self.architecture, seed=0)
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stream = made_up_images(images, settings, device)
        self.cases = _cases(self.architecture, final, extensions)

    def case(self, depth: int) -> Case:
        """Return the case of a depth.

        Raises:
            TinygrowError: nothing grows there.
        """
        if depth not in self.cases:
            known = ", ".join(map(str, self.cases))
            raise TinygrowError(f"depth is {depth}; this network grows at depths {known}")
        return self.cases[depth]

    def extend(self, measured: Measured) -> nn.Module:
        """Widen a copy of the network once."""
        settings, case = self.settings, measured.case
        network = copy.deepcopy(self.network)
        trainer = Trainer(network, self.stream, settings.training, total_epochs=1.0)
        seconds = measured.timer.seconds
        with measured.timer.part("extension"):
            done = extend(
                network,
                case.site,
                case.added,
                trainer,
                settings,
                generator=torch.Generator().manual_seed(0),
            )
        parts = (
            done.proposal.seconds_statistics,
            done.proposal.seconds_solve,
            done.seconds_search,
            done.seconds_surgery,
        )
        rest = seconds["extension"][-1] - sum(parts)
        for name, took in zip(PARTS, (*parts, rest), strict=True):
            seconds.setdefault(name, []).append(took)
        measured.images = done.proposal.images
        measured.search_images = min(settings.amplitude.images, len(self.stream))
        measured.search_losses = 0 if done.amplitude is None else len(done.amplitude.losses)
        return network

    def train(self, network: nn.Module, epochs: float, measured: Measured) -> None:
        """Train for so many epochs."""
        trainer = Trainer(network, self.stream, self.settings.training, total_epochs=epochs)
        with measured.timer.part(_training(epochs)):
            trainer.train(epochs)

    def warm_up(self, depths: Sequence[int]) -> None:
        """Run every part once on few images, for nothing."""
        few = StatisticsSettings(max_images=200, batch_size=self.settings.statistics.batch_size)
        settings, self.settings = self.settings, replace(self.settings, statistics=few)
        for depth in depths:
            scratch = Measured(self.case(depth), Timer(self.device))
            self.train(self.extend(scratch), 100 / len(self.stream), scratch)
        self.settings = settings


def made_up_images(count: int, settings: GrowthSettings, device: torch.device) -> TrainingStream:
    """Return images of ten classes: a smooth picture of the class under noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    coarse = torch.randint(30, 226, (CLASSES, 3, 4, 4), generator=generator).float()
    smooth = F.interpolate(coarse, size=SHAPE[1:], mode="bilinear")
    images = torch.empty(count, *SHAPE, dtype=torch.uint8)
    for part in torch.arange(count).split(1000):
        noise = 40 * torch.randn(len(part), *SHAPE, generator=generator)
        images[part] = (smooth[labels[part]] + noise).clamp(0, 255).to(torch.uint8)
    card = DataCard(
        name="made-up",
        source="random",
        classes=tuple(map(str, range(CLASSES))),
        shape=SHAPE,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        counts={"train": count},
    )
    augmentation = settings.training.augmentation
    return TrainingStream(DeviceImages(Split(images, labels), card, device), augmentation, seed=0)


def measure(bench: Bench, depths: Sequence[int], repeats: int) -> list[Measured]:
    """Repeat extension and training at each depth."""
    found = [Measured(bench.case(depth), Timer(bench.device)) for depth in depths]
    bench.warm_up(depths)
    for _ in range(repeats):
        for measured in found:
            widened = bench.extend(measured)
            for epochs in EPOCHS:
                bench.train(copy.deepcopy(widened), epochs, measured)
    return found


def table(found: Sequence[Measured]) -> str:
    """Return the seconds as text, one column a depth."""
    rows: list[list[str]] = [["seconds, median (smallest to largest)"]]
    rows += [[part] for part in PARTS]
    rows += [["one extension, together"]]
    rows += [[f"{_training(epochs)}"] for epochs in EPOCHS]
    rows += [[f"extension's share with {epochs:g} epochs, %"] for epochs in EPOCHS]
    for measured in found:
        case = measured.case
        head = f"depth {case.site.depth}: {case.width} + {case.added} of {case.final}"
        values = [measured.timer.seconds[part] for part in PARTS]
        values += [measured.growth()]
        values += [measured.timer.seconds[_training(epochs)] for epochs in EPOCHS]
        values += [measured.share(epochs) for epochs in EPOCHS]
        for row, cell in zip(rows, [head, *map(spread, values)], strict=True):
            row.append(cell)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    lines.insert(1, "-" * len(max(lines, key=len)))
    for measured in found:
        lines.append(
            f"depth {measured.case.site.depth}: {measured.images:,} images for the moments (each"
            f" sample counted); line search on {measured.search_images:,},"
            f" {measured.search_losses} losses in the last repeat"
        )
    return "\n".join(lines)


def summary(measured: Measured) -> dict[str, Any]:
    """Return one depth as plain data."""
    case = measured.case
    return {
        "depth": case.site.depth,
        "site": case.site.name,
        "width": case.width,
        "added": case.added,
        "final_width": case.final,
        "images": measured.images,
        "search_images": measured.search_images,
        "search_losses": measured.search_losses,
        "seconds": {part: figures(measured.timer.seconds[part]) for part in PARTS},
        "extension": figures(measured.growth()),
        "training": {f"{e:g}": figures(measured.timer.seconds[_training(e)]) for e in EPOCHS},
        "share_percent": {f"{e:g}": figures(measured.share(e)) for e in EPOCHS},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extension", description=__doc__)
    parser.add_argument("--base-width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--start", type=float, default=0.25, help="share of the middle widths")
    parser.add_argument("--extensions", type=int, default=12, help="steps of the whole growth")
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 17], help="where to widen")
    parser.add_argument("--images", type=int, default=5000, help="in the training set")
    parser.add_argument(
        "--max-images", type=int, help="for each pair of moments; 0: the training set"
    )
    parser.add_argument("--model", help="of params.yaml, whose settings of growth are taken")
    parser.add_argument("--repeats", type=int, default=5, help="timed, after a warm-up")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    chosen = parser.parse_args(arguments)
    if chosen.images < 200 or chosen.repeats < 1:
        parser.error("--images must be at least 200 and --repeats at least 1")
    try:
        settings = GrowthSettings()
        if chosen.model:
            settings = params.read().section(chosen.model, "growth", GrowthSettings)
        if chosen.max_images is not None:
            few = replace(settings.statistics, max_images=chosen.max_images)
            settings = replace(settings, statistics=few)
        device = pick_device(chosen.device)
        bench = Bench(
            base_width=chosen.base_width,
            start=chosen.start,
            extensions=chosen.extensions,
            images=chosen.images,
            settings=settings,
            device=device,
        )
        around = surroundings(device)
        found = measure(bench, chosen.depths, chosen.repeats)
    except TinygrowError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(
        f"ResNet of base width {chosen.base_width}, middle widths"
        f" {' '.join(map(str, bench.architecture.middle_widths))}; {chosen.images:,} made-up"
        f" training images of 3x32x32, batch size {bench.settings.training.batch_size};"
        f" n = {chosen.repeats}"
    )
    print(", ".join(f"{key} {value}" for key, value in around.items()), end="\n\n")
    print(table(found), end="\n\n")
    result = {"benchmark": "extension", "arguments": vars(chosen), **around}
    result["depths"] = [summary(measured) for measured in found]
    if chosen.model:
        result["holds"] = all(
            statistics.median(measured.share(1.0)) <= LARGEST_SHARE for measured in found
        )
    print(json.dumps(result))
    return 0 if result.get("holds", True) else 1


def _cases(start: Architecture, final: Architecture, extensions: int) -> dict[int, Case]:
    steps = neurons_per_extension(start.middle_widths, final.middle_widths, extensions)
    return {
        site.depth: Case(
            site=site,
            width=start.middle_widths[site.index],
            added=steps[site.index],
            final=final.middle_widths[site.index],
        )
        for site in sites_of(start)
    }


def _training(epochs: float) -> str:
    return f"training for {epochs:g} epochs"


if __name__ == "__main__":
    sys.exit(main())
