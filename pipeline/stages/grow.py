"""Stage `grow`: from a tiny seed network to full width."""

from collections.abc import Sequence

import torch
from torch import nn

from pipeline import params as parameters
from pipeline import paths
from pipeline.sections.network import network_settings
from tinygrow.architecture import Architecture, final_architecture, seed_architecture
from tinygrow.checkpoint import save_checkpoint
from tinygrow.data.prepared import load_card, load_split
from tinygrow.files import atomic_folder, write_json, write_text
from tinygrow.growth.grow import Grown, grow
from tinygrow.growth.log import ExtensionRow, curves_to_dict, rows_to_csv
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

    notes = {"model": name, "data": data_name, "seed": seed}
    with atomic_folder(paths.snapshots(name)) as folder:

        def snapshot(
            architecture: Architecture, weights: nn.Module, rows: Sequence[ExtensionRow]
        ) -> None:
            extension = rows[-1].extension
            if settings.snapshots or extension == 0:
                save_checkpoint(
                    folder / f"{extension:03d}.safetensors",
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
            snapshot=snapshot,
        )
    save_checkpoint(
        paths.grown(name),
        grown.architecture,
        grown.network,
        notes | {"growth": _history(grown.rows, grown.architecture, settings)},
    )
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
    """Tell how long the training of growth will take here, from the speed at both ends."""
    trainings = extensions if settings.train_after == "site" else settings.extensions
    images = settings.epochs_between * trainings * len(stream)
    grows = settings.method != "none"
    ends = [seed_network, final_network] if grows else [seed_network]
    speeds = [images_per_second(network, stream, settings.training) for network in ends]
    seconds = sum(images / speed for speed in speeds) / len(speeds)
    what = f"training the seed network of {count_parameters(seed_network):,} parameters"
    if grows:
        what = (
            f"growth from {count_parameters(seed_network):,} to"
            f" {count_parameters(final_network):,} parameters in {extensions} extensions"
        )
    observer.say(
        f"{what} on {stream.images.device}: {images:,.0f} image passes at"
        f" {' to '.join(f'{speed:.0f}' for speed in speeds)} images/s, {duration(seconds)}"
        f"{'; extensions come on top, told after the first sweep' if grows else ''}. Fewer"
        " epochs_between, extensions or images, or smaller widths, make it shorter"
    )
