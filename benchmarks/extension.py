"""Time the parts of one extension against the training around it.

`python -m benchmarks.extension` widens the growable residual network once at each chosen depth, on
made-up images of CIFAR's shape, and prints seconds as median (smallest to largest) of the
repeats; its last line is one JSON object. Every repeat starts from the same network and fresh
images, and goes through all depths, so that a busy moment of the machine hits all of them.
"""

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.timing import Timer, figures, spread, surroundings
from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.data.prepared import DataCard, Split
from tinygrow.errors import TinygrowError
from tinygrow.growth.amplitude import Trial, better_sign, choose_amplitude, normalize
from tinygrow.growth.bottleneck import best_update, bottleneck, optimal_neurons
from tinygrow.growth.sample_size import neuron_sample_size, update_sample_size
from tinygrow.growth.schedule import neurons_per_extension
from tinygrow.growth.sites import Site, sites_of
from tinygrow.growth.statistics import (
    batch_statistics,
    desired_update,
    neuron_moments,
    update_moments,
)
from tinygrow.growth.surgery import as_units, measure_running_statistics, widen
from tinygrow.networks.build import build_network
from tinygrow.settings.growth import GrowthSettings, StatisticsSettings
from tinygrow.settings.network import ResNetSettings
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.device import pick_device
from tinygrow.training.loop import Trainer

# Part -> the column of the growth log that holds it.
PARTS = {
    "images": "statistics",
    "S1, M": "statistics",
    "S, N": "statistics",
    "best update": "solve",
    "neurons": "solve",
    "images, normalise": "search",
    "sign": "search",
    "line search": "search",
    "widen": "surgery",
    "running statistics": "surgery",
    "bottleneck again": "surgery",
}
EPOCHS = (0.25, 1.0)
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
        update_images: for S1 and M.
        neuron_images: for S and N.
        search_images: of the line search.
        search_losses: amplitudes tried, in the last repeat.
    """

    case: Case
    timer: Timer
    update_images: int = 0
    neuron_images: int = 0
    search_images: int = 0
    search_losses: int = 0

    def growth(self, group: str | None = None) -> list[float]:
        """Return the seconds of all parts, or of one group of them, a repeat."""
        chosen = [part for part in PARTS if group in (None, PARTS[part])]
        return [sum(times) for times in zip(*(self.timer.seconds[p] for p in chosen), strict=True)]

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
        """Widen a copy of the network once, part by part as `extend` of growth does."""
        settings, stream, site = self.settings, self.stream, measured.case.site
        sampling, cut = settings.statistics, settings.solver.relative_cut
        network = copy.deepcopy(self.network)
        first, second = site.layers(network)
        with batch_statistics(network):
            _, h, _ = desired_update(network, site, stream.sample(2, 2)[0])
        hidden = tuple(h.shape[2:])
        sizes = (
            update_sample_size(second, hidden, len(stream), sampling),
            neuron_sample_size(first, second, hidden, len(stream), sampling),
        )
        timed = measured.timer.part

        with timed("images"):
            update_images, neuron_images = (stream.sample(n, sampling.batch_size) for n in sizes)
        with timed("S1, M"):
            moments = update_moments(network, site, update_images, sampling)
        with timed("best update"):
            delta = best_update(moments.S1, moments.M, cut)
            bottleneck(moments.power, moments.M, delta)
        with timed("S, N"):
            pair = neuron_moments(network, site, neuron_images, delta, sampling)
        with timed("neurons"):
            neurons = optimal_neurons(pair.S, pair.N, measured.case.added, cut)
        with timed("images, normalise"):
            images = list(stream.sample(settings.amplitude.images, sampling.batch_size))
            units = normalize(network, site, as_units(neurons, first, second), images[0])
        with timed("sign"):
            trial = Trial(network, site, units)
            sign = better_sign(trial, images[0], settings.amplitude.sign_amplitude, 0.0)
        with timed("line search"):
            left = replace(settings.amplitude, normalization="none", sign="none")
            amplitude = choose_amplitude(network, site, units.scaled(sign, sign), images, left)
        assert amplitude.units is not None
        with timed("widen"):
            widen(network, site, amplitude.units)
        with timed("running statistics"):
            measure_running_statistics(network, images)
        with timed("bottleneck again"):
            moments = update_moments(network, site, update_images, sampling)
            bottleneck(moments.power, moments.M, best_update(moments.S1, moments.M, cut))

        measured.update_images, measured.neuron_images = moments.images, pair.images
        measured.search_images = sum(len(labels) for _, labels in images)
        measured.search_losses = len(amplitude.losses)
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
    rows += [[f"{PARTS[part]}: {part}"] for part in PARTS]
    rows += [[f"{group}, together"] for group in dict.fromkeys(PARTS.values())]
    rows += [["one extension, together"]]
    rows += [[f"{_training(epochs)}"] for epochs in EPOCHS]
    rows += [[f"extension's share with {epochs:g} epochs, %"] for epochs in EPOCHS]
    for measured in found:
        case = measured.case
        head = f"depth {case.site.depth}: {case.width} + {case.added} of {case.final}"
        values = [measured.timer.seconds[part] for part in PARTS]
        values += [measured.growth(group) for group in dict.fromkeys(PARTS.values())]
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
            f"depth {measured.case.site.depth}: {measured.update_images:,} images for S1, M;"
            f" {measured.neuron_images:,} for S, N; line search on {measured.search_images:,},"
            f" {measured.search_losses} losses in the last repeat"
        )
    return "\n".join(lines)


def summary(measured: Measured) -> dict[str, Any]:
    """Return one depth as plain data."""
    case = measured.case
    groups = dict.fromkeys(PARTS.values())
    return {
        "depth": case.site.depth,
        "site": case.site.name,
        "width": case.width,
        "added": case.added,
        "final_width": case.final,
        "update_images": measured.update_images,
        "neuron_images": measured.neuron_images,
        "search_images": measured.search_images,
        "search_losses": measured.search_losses,
        "seconds": {part: figures(measured.timer.seconds[part]) for part in PARTS},
        "groups": {group: figures(measured.growth(group)) for group in groups},
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
        "--max-images", type=int, default=0, help="for each pair of moments; 0: the training set"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed, after a warm-up")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    chosen = parser.parse_args(arguments)
    if chosen.images < 200 or chosen.repeats < 1:
        parser.error("--images must be at least 200 and --repeats at least 1")
    try:
        device = pick_device(chosen.device)
        bench = Bench(
            base_width=chosen.base_width,
            start=chosen.start,
            extensions=chosen.extensions,
            images=chosen.images,
            settings=GrowthSettings(statistics=StatisticsSettings(max_images=chosen.max_images)),
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
    print(json.dumps(result | {"depths": [summary(measured) for measured in found]}))
    return 0


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
