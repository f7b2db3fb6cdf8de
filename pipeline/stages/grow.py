"""Stage `grow`: from a tiny seed network to full width."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pipeline import params as parameters
from pipeline import paths
from pipeline.sections.network import network_settings
from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.checkpoint import save_checkpoint
from tinygrow.data.prepared import load_card, load_split
from tinygrow.files import write_json, write_text
from tinygrow.growth.grow import Grown, grow
from tinygrow.growth.log import curves_to_dict, rows_to_csv
from tinygrow.growth.schedule import visits
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_parameters
from tinygrow.observer import Observer
from tinygrow.settings.growth import GrowthSettings
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.device import pick_device
from tinygrow.training.estimate import duration, images_per_second


def run(name: str, *, observer: Observer, device: str | None = None) -> None:
    """Grow the model `name`.

    Args:
        name: of a block under `models` in `params.yaml`.
        observer: told of progress.
        device: instead of the one in `params.yaml`.
    """
    values = parameters.read()
    settings = values.section(name, "growth", GrowthSettings)
    network_section = network_settings(values, name)
    seed = values.value(name, "seed")
    data_name = values.value(name, "data")
    data = paths.prepared(data_name)
    place = pick_device(device or values.value(name, "device"))

    card = load_card(data)
    final = final_architecture(network_section, card.shape, len(card.classes))
    start = seed_architecture(network_section, final)
    plan = list(visits(start.middle_widths, final.middle_widths, settings.extensions))

    network = _placed(start, seed, place)
    stream = TrainingStream(
        DeviceImages(load_split(data, "train"), card, place), settings.training.augmentation, seed
    )
    validation = DeviceImages(load_split(data, "validation"), card, place)
    _say_estimate(network, _placed(final, seed, place), stream, settings, len(plan), observer)

    grown = grow(
        network,
        start,
        final,
        stream,
        validation,
        settings,
        seed=seed,
        observer=observer,
        snapshot=_snapshots(paths.snapshots(name), settings.snapshots),
    )
    notes = {
        "model": name,
        "data": data_name,
        "seed": seed,
        "growth": _history(grown, start, settings),
    }
    save_checkpoint(paths.grown(name), grown.architecture, grown.network, notes)
    write_json(paths.growth_details(name), curves_to_dict(grown.curves))
    write_text(paths.growth_table(name), rows_to_csv(grown.rows))
    write_json(paths.growth_metrics(name), _figures(grown))
    last = grown.rows[-1]
    observer.say(
        f"{paths.grown(name)}: {last.parameters:,} parameters, validation accuracy"
        f" {last.validation_accuracy:.2f} %"
    )


def _placed(architecture: Architecture, seed: int, device: torch.device) -> nn.Module:
    network = build_network(architecture, seed)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _snapshots(folder: Path, wanted: bool) -> Callable[[int, Architecture, nn.Module], None]:
    """Return what saves a checkpoint: the seed network in any case, extensions if wanted."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def save(extension: int, architecture: Architecture, network: nn.Module) -> None:
        if wanted or extension == 0:
            path = folder / f"{extension:03d}.safetensors"
            save_checkpoint(path, architecture, network, {"extension": extension})

    return save


def _history(grown: Grown, start: Architecture, settings: GrowthSettings) -> dict[str, object]:
    """Return what the checkpoint tells of its growth."""
    return {
        "method": settings.method,
        "extensions": settings.extensions,
        "epochs_between": settings.epochs_between,
        "images_seen": grown.rows[-1].images_seen,
        "start_widths": list(start.middle_widths),
        "final_widths": list(grown.architecture.middle_widths),
        "start_parameters": grown.rows[0].parameters,
        "rejected": sum(bool(row.rejected) for row in grown.rows),
    }


def _figures(grown: Grown) -> dict[str, float]:
    rows, last = grown.rows, grown.rows[-1]
    seconds = sum(
        r.seconds_statistics
        + r.seconds_solve
        + r.seconds_search
        + r.seconds_surgery
        + r.seconds_training
        for r in rows
    )
    return {
        "validation_accuracy": last.validation_accuracy,
        "parameters": last.parameters,
        "multiply_adds": last.multiply_adds,
        "images_seen": last.images_seen,
        "statistics_images": last.statistics_images,
        "rejected": sum(bool(r.rejected) for r in rows),
        "seconds": round(seconds, 3),
    }


def _say_estimate(
    seed_network: nn.Module,
    final_network: nn.Module,
    stream: TrainingStream,
    settings: GrowthSettings,
    extensions: int,
    observer: Observer,
) -> None:
    """Tell how long growth will take here, from the speed at both ends."""
    trainings = extensions if settings.train_after == "site" else settings.extensions
    images = settings.epochs_between * trainings * len(stream)
    slow = images_per_second(final_network, stream, settings.training)
    fast = images_per_second(seed_network, stream, settings.training)
    observer.say(
        f"growth from {count_parameters(seed_network):,} to {count_parameters(final_network):,}"
        f" parameters on {stream.images.device}: {extensions} extensions and {images:,.0f} image"
        f" passes at {min(fast, slow):.0f} to {max(fast, slow):.0f} images/s, about"
        f" {duration(images * 0.5 * (1 / slow + 1 / fast))} of training plus the extensions;"
        " fewer epochs_between, extensions or images, or a smaller base_width, make it shorter"
    )
