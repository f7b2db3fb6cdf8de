"""Compare ways to new neurons at equal checkpoints: `python -m benchmarks.neurons DATA OUT`.

A growable residual network is trained on a few images; at some moments of training and some depths
each variant proposes the same number of neurons from the same statistics images and the same images
of the line search. What they are worth is measured on images that served neither, with the network
untouched otherwise:

- the fall of the loss, augmented and with BatchNorm of the mini-batch as in training; and, half of
  them as they are, in evaluation mode with running statistics measured on the search's images;
- the fall of the bottleneck: how much more of the desired update (that of the network before) the
  weights of the second layer can do with the new neurons there, on half of the augmented images,
  the best move fitted to the very images it is measured on, with and without the neurons.

Each cell is a line of OUT/cells.jsonl; a run goes on where the last one ended, and adds the
variants that are new. The last line of stdout is one JSON object: the ratio of each variant's sum
to the plain method's with a 95 % interval (bootstrap over cells, pairs kept together), and `holds`
for the aim.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.neurons_summary import summarise
from benchmarks.neurons_tail import features, tail_of
from benchmarks.neurons_variants import PLAIN, VARIANTS, plain_settings
from benchmarks.timing import surroundings
from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.data.prepared import DataCard, Split, load_card, load_split
from tinygrow.errors import TinygrowError
from tinygrow.growth.amplitude import Amplitude
from tinygrow.growth.bottleneck import best_update, bottleneck
from tinygrow.growth.extend import search
from tinygrow.growth.neurons.method import METHODS
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.refine import refined
from tinygrow.growth.schedule import neurons_per_extension
from tinygrow.growth.sites import Site, sites_of
from tinygrow.growth.statistics import UpdateMoments, batch_statistics, update_moments
from tinygrow.growth.surgery import NewUnits, measure_running_statistics, widen
from tinygrow.networks.build import build_network
from tinygrow.settings.growth import GrowthSettings
from tinygrow.settings.network import ResNetSettings
from tinygrow.training.batches import Batch, DeviceImages, TrainingStream
from tinygrow.training.loop import Trainer

BATCH = 100
DEPTHS = (2, 7, 12, 17)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all cells share.

    Attributes:
        start: the network that is trained.
        final: at full width.
        settings: of the plain method.
        train: images of training, statistics and search.
        held_out: images that judge.
        moments: epochs of training at which neurons are added.
        folder: of results.
    """

    start: Architecture
    final: Architecture
    settings: GrowthSettings
    train: DeviceImages
    held_out: DeviceImages
    moments: tuple[int, ...]
    folder: Path

    def stream(self, seed: int) -> TrainingStream:
        """Return an augmented stream of its own."""
        return TrainingStream(self.train, self.settings.training.augmentation, seed)

    def checkpoint(self, seed: int, epochs: int) -> Path:
        """Return where a trained network is kept."""
        return self.folder / "checkpoints" / f"seed{seed}-epoch{epochs}.pt"

    def network(self, seed: int, epochs: int) -> nn.Module:
        """Return the network of a seed at a moment of training."""
        network = build_network(self.start, seed)
        network.load_state_dict(torch.load(self.checkpoint(seed, epochs), weights_only=True))
        return _channels_last(network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Where and when neurons are added."""

    seed: int
    epochs: int
    depth: int

    def stream_seed(self, purpose: int) -> int:
        """Return a seed of its own for each purpose."""
        return ((self.seed * 1000 + self.epochs) * 100 + self.depth) * 100 + purpose


class Samples:
    """Gives every variant the same images, call by call, as the site's block reads them."""

    def __init__(self, setting: Setting, cell: Cell, network: nn.Module, site: Site) -> None:
        self._setting, self._cell, self._network, self._site = setting, cell, network, site
        self._kept: dict[tuple[int, int], list[Batch]] = {}
        self.calls = 0

    def __call__(self, count: int) -> list[Batch]:
        """Return the images of this call."""
        self.calls += 1
        key = self.calls, count
        if key not in self._kept:
            stream = self._setting.stream(self._cell.stream_seed(self.calls))
            images = stream.sample(count, BATCH)
            self._kept[key] = features(self._network, self._site, images)
        return self._kept[key]


def train(setting: Setting, seed: int) -> None:
    """Train a network and keep it at each moment."""
    if all(setting.checkpoint(seed, epochs).is_file() for epochs in setting.moments):
        return
    network = _channels_last(build_network(setting.start, seed))
    trainer = Trainer(
        network,
        setting.stream(seed),
        setting.settings.training,
        total_epochs=max(setting.moments),
    )
    done = 0
    for epochs in setting.moments:
        trainer.train(epochs - done)
        done = epochs
        path = setting.checkpoint(seed, epochs)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)
    print(f"seed {seed}: trained", file=sys.stderr, flush=True)


class Judge:
    """Measures what new units are worth in one cell."""

    def __init__(self, setting: Setting, cell: Cell) -> None:
        self.setting, self.cell = setting, cell
        index, self.site = next(
            (i, s) for i, s in enumerate(sites_of(setting.start)) if s.depth == cell.depth
        )
        settings = setting.settings
        self.count = neurons_per_extension(
            setting.start.middle_widths, setting.final.middle_widths, settings.extensions
        )[index]
        whole = setting.network(cell.seed, cell.epochs)
        self.network = tail_of(whole, self.site)
        self.samples = Samples(setting, cell, whole, self.site)
        search = setting.stream(cell.stream_seed(99)).sample(settings.amplitude.images, BATCH)
        judges = TrainingStream(setting.held_out, settings.training.augmentation, cell.seed)
        held_out = judges.sample(len(setting.held_out), BATCH)
        self.search = features(whole, self.site, search)
        self.held_out = features(whole, self.site, held_out)
        self._half = self.held_out[: len(self.held_out) // 2]
        measure_running_statistics(whole, search)
        plain = list(setting.held_out.batches(BATCH))[: len(self._half)]
        self._as_they_are = features(whole, self.site, plain, training=False)
        self.before = self._losses(self.network)
        self._proposals: dict[Any, Proposal] = {}

    def measure(self, name: str) -> dict[str, Any]:
        """Let a variant propose, search and widen; return what that changed."""
        settings = VARIANTS[name].change(self.setting.settings)
        self.samples.calls = 0
        request = Request(
            network=self.network,
            site=self.site,
            count=self.count,
            sample=self.samples,
            available=len(self.setting.train),
            settings=settings,
            generator=torch.Generator().manual_seed(self.cell.stream_seed(98)),
        )
        proposal = self._proposal(request)
        started = time.perf_counter()
        units, amplitude_settings = refined(request, proposal)
        amplitude = Amplitude(units, 1, 0.0, (0.0,), (0.0,))
        if len(units):  # there may be none of significance
            amplitude = search(request, proposal, units, self.search, amplitude_settings)
        seconds = proposal.seconds_statistics + proposal.seconds_solve
        seconds += time.perf_counter() - started
        assert amplitude.units is not None
        network = copy.deepcopy(self.network)
        if len(units):
            widen(network, self.site, amplitude.units)
        after = self._losses(network)
        return {
            "variant": name,
            "seed": self.cell.seed,
            "epochs": self.cell.epochs,
            "depth": self.cell.depth,
            "neurons": len(amplitude.units),
            "images": proposal.images,
            "factor": amplitude.factor,
            "loss_before": self.before[0],
            "loss_fall": self.before[0] - after[0],
            "evaluation_loss_before": self.before[1],
            "evaluation_loss_fall": self.before[1] - after[1],
            "search_loss_fall": amplitude.loss_before - amplitude.loss_after,
            "bottleneck_fall": self._bottleneck_fall(amplitude.units) if len(units) else 0.0,
            "predicted": float(proposal.neurons.singular_values[: self.count].square().sum()),
            "seconds": seconds,
        }

    def _proposal(self, request: Request) -> Proposal:
        """Return what the method proposes; variants that differ in what follows share it."""
        settings = request.settings
        count = request.count * settings.refinement.candidates
        key = settings.method, settings.solver, settings.statistics, count
        if key not in self._proposals:
            self._proposals[key] = METHODS[settings.method](replace(request, count=count))
        return self._proposals[key]

    def _losses(self, network: nn.Module) -> tuple[float, float]:
        """Return the held-out loss with statistics of the mini-batch and with running ones."""
        network = copy.deepcopy(network)
        with batch_statistics(network):
            batch = _mean_loss(network, self.held_out)
        measure_running_statistics(network, self.search)
        return batch, _mean_loss(network.eval(), self._as_they_are)

    def _bottleneck_fall(self, units: NewUnits) -> float:
        trial = copy.deepcopy(self.network)
        widen(trial, self.site, units.scaled(1.0, 0.0))
        statistics = self.setting.settings.statistics
        wide = update_moments(trial, self.site, self._half, statistics)
        old = wide.S1.shape[0] - len(units) * self._taps() - 1
        kept = torch.cat([torch.arange(old), torch.tensor([wide.S1.shape[0] - 1])])
        narrow = UpdateMoments(wide.S1[kept][:, kept], wide.M[kept], wide.power, wide.images)
        return self._bottleneck(narrow) - self._bottleneck(wide)

    def _bottleneck(self, moments: UpdateMoments) -> float:
        delta = best_update(moments.S1, moments.M, self.setting.settings.solver.relative_cut)
        return bottleneck(moments.power, moments.M, delta)

    def _taps(self) -> int:
        return self.site.layers(self.network)[1].weight[0, 0].numel()


@torch.no_grad()
def _mean_loss(network: nn.Module, batches: Sequence[Batch]) -> float:
    total, images = 0.0, 0
    for x, y in batches:
        losses = nn.functional.cross_entropy(network(x), y, reduction="none")
        total += float(losses.double().sum())
        images += len(y)
    return total / images


def _channels_last(network: nn.Module) -> nn.Module:
    return network.to(memory_format=torch.channels_last)


def load_images(path: Path, images: int, held_out: int) -> tuple[DeviceImages, DeviceImages]:
    """Return random training images and held-out ones, both of the training set.

    Args:
        path: prepared data (.safetensors), or a file of torch.save whose `train` is a pair of uint8
            images (N, C, H, W) and labels.
        images: to train on.
        held_out: to judge with.
    """
    if path.suffix == ".safetensors":
        card, split = load_card(path), load_split(path, "train")
    else:
        split = Split(*torch.load(path, weights_only=True)["train"])
        card = None
    if len(split.labels) < images + held_out:
        raise TinygrowError(
            f"{path} has {len(split.labels)} training images; {images + held_out} are asked for"
        )
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))
    parts = order[:images], order[images : images + held_out]
    if card is None:
        card = _card_of(split, parts[0])
    device = torch.device("cpu")
    one, two = (
        DeviceImages(Split(split.images[part], split.labels[part]), card, device) for part in parts
    )
    return one, two


def _card_of(split: Split, chosen: torch.Tensor) -> DataCard:
    pixels = split.images[chosen].double() / 255
    return DataCard(
        name="images",
        source="a file of tensors",
        classes=tuple(map(str, range(int(split.labels.max()) + 1))),
        shape=tuple(split.images.shape[1:]),  # type: ignore[arg-type]
        mean=tuple(pixels.mean((0, 2, 3)).tolist()),
        std=tuple(pixels.std((0, 2, 3)).tolist()),
        counts={},
    )


def finished(path: Path) -> list[dict[str, Any]]:
    """Return the cells that are done."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def run(
    setting: Setting, seeds: Sequence[int], depths: Sequence[int], names: Sequence[str]
) -> None:
    """Measure what is missing, one line a cell and variant."""
    path = setting.folder / "cells.jsonl"
    done = {(r["seed"], r["epochs"], r["depth"], r["variant"]) for r in finished(path)}
    for seed in seeds:
        train(setting, seed)
        for epochs in setting.moments:
            for depth in depths:
                missing = [n for n in names if (seed, epochs, depth, n) not in done]
                if not missing:
                    continue
                judge = Judge(setting, Cell(seed=seed, epochs=epochs, depth=depth))
                for name in missing:
                    row = judge.measure(name)
                    with path.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                print(f"seed {seed} epoch {epochs} depth {depth}", file=sys.stderr, flush=True)


def setting_of(
    data: Path,
    folder: Path,
    moments: tuple[int, ...],
    *,
    base_width: int = 8,
    images: int = 5000,
    held_out: int = 2000,
) -> Setting:
    """Return what all cells share: see `Setting` and `load_images`."""
    one, two = load_images(data, images, held_out)
    network = ResNetSettings(base_width=base_width, start=0.25)
    classes = int(one.labels.max()) + 1
    final = final_architecture(network, (3, *one.images_NHWC.shape[1:3]), classes)
    return Setting(
        start=seed_architecture(network, final),
        final=final,
        settings=plain_settings(),
        train=one,
        held_out=two,
        moments=moments,
        folder=folder,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit status is 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="prepared data, or a file of torch.save")
    parser.add_argument("folder", type=Path, help="of results; a second run goes on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 4, 12])
    parser.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--base-width", type=int, default=8)
    parser.add_argument("--images", type=int, default=5000, help="of training")
    parser.add_argument("--held-out", type=int, default=2000)
    options = parser.parse_args(arguments)
    about = surroundings(torch.device("cpu"))
    setting = setting_of(
        options.data,
        options.folder,
        tuple(options.epochs),
        base_width=options.base_width,
        images=options.images,
        held_out=options.held_out,
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    run(setting, options.seeds, options.depths, list(dict.fromkeys([PLAIN, *options.variants])))
    summary = summarise(finished(options.folder / "cells.jsonl"))
    print(json.dumps({**summary, **about}))
    return 0 if summary["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
