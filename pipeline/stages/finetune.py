"""Stage `finetune`: train the grown network at full width."""

from dataclasses import asdict

import torch

from pipeline import params as parameters
from pipeline import paths
from tinygrow.checkpoint import load_checkpoint, require_fit, save_checkpoint
from tinygrow.data.prepared import load_card, load_split
from tinygrow.files import write_json, write_text
from tinygrow.observer import Observer
from tinygrow.settings.training import FinetuneSettings
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.device import pick_device
from tinygrow.training.estimate import duration, images_per_second
from tinygrow.training.finetune import epochs_to_csv, finetune


def run(name: str, *, observer: Observer, device: str | None = None) -> None:
    """Fine-tune the model `name`.

    Args:
        name: of a block under `models` in `params.yaml`.
        observer: told of progress.
        device: instead of the one in `params.yaml`.
    """
    values = parameters.read()
    settings = values.section(name, "finetune", FinetuneSettings)
    seed = values.value(name, "seed")
    data = paths.prepared(values.value(name, "data"))
    place = pick_device(device or values.value(name, "device"))

    source = load_checkpoint(paths.grown(name))
    card = load_card(data)
    require_fit(source, card, paths.grown(name))
    network = source.network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    # Another stream of random numbers than growth's, from the same seed.
    stream = TrainingStream(
        DeviceImages(load_split(data, "train"), card, place),
        settings.training.augmentation,
        seed + 1_000_003,
    )
    validation = DeviceImages(load_split(data, "validation"), card, place)

    speed = images_per_second(network, stream, settings.training)
    images = settings.epochs * len(stream)
    observer.say(
        f"fine-tuning on {place}: {settings.epochs} epochs, {images:,} image passes at about"
        f" {speed:.0f} images/s: {duration(images / speed)}; fewer epochs or a smaller network"
        " make it shorter"
    )
    done = finetune(network, stream, validation, settings, observer=observer)
    last = done.rows[-1]
    seconds = round(sum(row.seconds for row in done.rows), 3)
    history = {"epochs": settings.epochs, "images_seen": last.images_seen}
    save_checkpoint(
        paths.finetuned(name),
        source.architecture,
        done.network,
        source.notes | {"finetune": history | {"validation_accuracy": last.validation_accuracy}},
    )
    write_text(paths.finetune_table(name), epochs_to_csv(done.rows))
    kept = ("validation_accuracy", "validation_loss", "train_loss", "images_seen")
    figures = {key: value for key, value in asdict(last).items() if key in kept}
    write_json(paths.finetune_metrics(name), figures | {"seconds": seconds})
    observer.say(
        f"{paths.finetuned(name)}: validation accuracy {last.validation_accuracy:.2f} % after"
        f" {settings.epochs} epochs"
    )
