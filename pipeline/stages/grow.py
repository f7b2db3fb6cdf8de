"""Stage `grow`: from a tiny seed network to full width."""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline import params as parameters
from pipeline import paths, state
from pipeline.sections.network import network_settings
from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.checkpoint import save_checkpoint
from tinygrow.connectivity.from_fx import UnreadableError, from_module
from tinygrow.connectivity.report import describe, errors_of
from tinygrow.data.prepared import load_card, load_split
from tinygrow.distributed import processes
from tinygrow.files import atomic_folder, write_json, write_text
from tinygrow.growth.grow import Grown, done_so_far, grow
from tinygrow.growth.log import ExtensionRow, curves_to_dict, rows_to_csv
from tinygrow.growth.schedule import check_plan
from tinygrow.networks.build import build_network
from tinygrow.observer import Observer
from tinygrow.settings.growth import GrowthSettings
from tinygrow.state.stop import StopRequest
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.device import own_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Growing:
    """What an estimate of a growth may look at, and must not change.

    Attributes:
        values: of `params.yaml`.
        model: its name.
        start: seed architecture.
        final: full width.
        stream: training images.
        settings: of growth.
        validation_images: that the log looks at after each visit.
        done_visits: of the plan, where an interrupted growth goes on.
        done_images: image passes of training, likewise.
        seed: of weights.
    """

    values: parameters.Params
    model: str
    start: Architecture
    final: Architecture
    stream: TrainingStream
    settings: GrowthSettings
    validation_images: int
    done_visits: int
    done_images: int
    seed: int


def run(
    name: str,
    *,
    observer: Observer,
    device: str | None = None,
    stop: StopRequest | None = None,
    minutes: float | None = None,
    estimate: Callable[[Growing], Iterable[str]] | None = None,
) -> None:
    """Grow the model `name`.

    Args:
        name: of a block under `models` in `params.yaml`.
        observer: told of progress.
        device: instead of the one in `params.yaml`.
        stop: where requests to stop arrive.
        minutes: between two saves of the state.
        estimate: gives lines on what the growth will take.
    """
    values = parameters.read()
    settings = values.section(name, "growth", GrowthSettings)
    network_section = network_settings(values, name)
    seed = values.value(name, "seed")
    data_name = values.value(name, "data")
    data = paths.prepared(data_name)
    place = own_device(
        device or values.value(name, "device"), values.value(name, "processes"), observer.say
    )

    card = load_card(data)
    final = final_architecture(network_section, card.shape, len(card.classes))
    start = seed_architecture(network_section, final)
    check_plan(start, final, settings)

    network = _placed(start, seed, place)
    wiring = _wiring(name, network, start, place, observer) if processes().is_first else {}
    stream = TrainingStream(
        DeviceImages(load_split(data, "train"), card, place), settings.training.augmentation, seed
    )
    validation = DeviceImages(load_split(data, "validation"), card, place)
    notes = {"model": name, "data": data_name, "seed": seed}
    belongs = state.belonging("grow", values, name, place.type, processes().count)
    with state.kept("grow", name, belongs, observer=observer, stop=stop, minutes=minutes) as keeper:
        if estimate is not None:
            done = keeper.restore()
            visits_done, images_done = (0, 0) if done is None else done_so_far(done)
            for line in estimate(
                Growing(
                    values=values,
                    model=name,
                    start=start,
                    final=final,
                    stream=stream,
                    settings=settings,
                    validation_images=len(validation),
                    done_visits=visits_done,
                    done_images=images_done,
                    seed=seed,
                )
            ):
                observer.say(line)

        def snapshot(
            architecture: Architecture, weights: nn.Module, rows: Sequence[ExtensionRow]
        ) -> None:
            extension = rows[-1].extension
            if settings.snapshots or extension == 0:
                save_checkpoint(
                    keeper.folder / "snapshots" / f"{extension:03d}.safetensors",
                    architecture,
                    weights,
                    notes | {"growth": _history(rows, architecture, settings)},
                )

        grown = grow(
            network,
            start,
            final,
            stream,
            validation,
            settings,
            seed=seed,
            observer=observer,
            snapshot=snapshot if processes().is_first else None,
            keeper=keeper,
        )
        if not processes().is_first:
            return
        with atomic_folder(paths.snapshots(name)) as folder:
            _link_all(keeper.folder / "snapshots", folder)
        save_checkpoint(
            paths.grown(name),
            grown.architecture,
            grown.network,
            notes
            | {
                "growth": _history(grown.rows, grown.architecture, settings)
                | {"ended": grown.ended}
            },
        )
        write_json(paths.connectivity(name), wiring)
        write_json(paths.growth_details(name), curves_to_dict(grown.curves))
        write_text(paths.growth_table(name), rows_to_csv(grown.rows))
        write_json(paths.growth_metrics(name), _figures(grown))
    last = grown.rows[-1]
    observer.say(
        f"{paths.grown(name)}: {last.parameters:,} parameters, validation accuracy"
        f" {last.validation_accuracy:.2f} %"
    )


def _wiring(
    name: str,
    network: nn.Module,
    architecture: Architecture,
    device: torch.device,
    observer: Observer,
) -> dict[str, Any]:
    """Return how the network is wired, and tell errors: neurons that are added change no path."""
    try:
        graph = from_module(network, torch.zeros(2, *architecture.input_shape, device=device))
    except UnreadableError as error:
        observer.say(f"{paths.connectivity(name)}: SKIPPED, {error}")
        return {"model": name, "unreadable": str(error)}
    report = describe(name, graph)
    for line in errors_of(report):
        observer.say(f"connectivity: {line}")
    return report


def _link_all(source: Path, target: Path) -> None:
    """Give files a second name, or copy them where the file system cannot."""
    for file in sorted(source.iterdir()):
        try:
            os.link(file, target / file.name)
        except OSError:
            shutil.copyfile(file, target / file.name)


def _placed(architecture: Architecture, seed: int, device: torch.device) -> nn.Module:
    network = build_network(architecture, seed)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _history(
    rows: Sequence[ExtensionRow], architecture: Architecture, settings: GrowthSettings
) -> dict[str, object]:
    """Return what a checkpoint tells of the growth behind it."""
    return {
        "method": settings.method,
        "extensions": settings.extensions,
        "extension": rows[-1].extension,
        "epochs_between": settings.epochs_between,
        "images_seen": rows[-1].images_seen,
        "start_widths": list(rows[0].widths),
        "final_widths": list(architecture.middle_widths),
        "start_parameters": rows[0].parameters,
        "rejected": sum(bool(row.rejected) for row in rows),
    }


def _figures(grown: Grown) -> dict[str, float]:
    rows, last = grown.rows, grown.rows[-1]
    seconds = sum(row.seconds for row in rows)
    return {
        "validation_accuracy": last.validation_accuracy,
        "parameters": last.parameters,
        "multiply_adds": last.multiply_adds,
        "images_seen": last.images_seen,
        "statistics_images": last.statistics_images,
        "rejected": sum(bool(r.rejected) for r in rows),
        "seconds": round(seconds, 3),
    }
