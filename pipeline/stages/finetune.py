"""Stage `finetune`: train the grown network at full width."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from pipeline import params as parameters
from pipeline import paths, state
from tinygrow.checkpoint import Checkpoint, load_checkpoint, require_fit, save_checkpoint
from tinygrow.data.prepared import load_card, load_split
from tinygrow.distributed import processes
from tinygrow.files import write_json, write_text
from tinygrow.observer import Observer
from tinygrow.settings.training import FinetuneSettings
from tinygrow.state.stop import StopRequest
from tinygrow.training.batches import DeviceImages, TrainingStream
from tinygrow.training.device import own_device
from tinygrow.training.finetune import Finetuned, epochs_to_csv, finetune


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuning:
    """What an estimate of a fine-tuning may look at, and must not change.

    Attributes:
        values: of `params.yaml`.
        model: its name.
        network: as growth left it.
        stream: training images.
        settings: of fine-tuning.
        validation_images: of each look.
        done_images: image passes of training, where an interrupted training goes on.
    """

    values: parameters.Params
    model: str
    network: nn.Module
    stream: TrainingStream
    settings: FinetuneSettings
    validation_images: int
    done_images: int


def run(
    name: str,
    *,
    observer: Observer,
    device: str | None = None,
    stop: StopRequest | None = None,
    minutes: float | None = None,
    estimate: Callable[[Finetuning], Iterable[str]] | None = None,
) -> None:
    """Fine-tune the model `name`.

    Args:
        name: of a block under `models` in `params.yaml`.
        observer: told of progress.
        device: instead of the one in `params.yaml`.
        stop: where requests to stop arrive.
        minutes: between two saves of the state.
        estimate: gives lines on what the training will take.
    """
    values = parameters.read()
    settings = values.section(name, "finetune", FinetuneSettings)
    seed = values.value(name, "seed")
    data = paths.prepared(values.value(name, "data"))
    place = own_device(
        device or values.value(name, "device"), values.value(name, "processes"), observer.say
    )

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

    belongs = state.belonging("finetune", values, name, place.type, processes().count)
    with state.kept(
        "finetune", name, belongs, observer=observer, stop=stop, minutes=minutes
    ) as keeper:
        if estimate is not None:
            kept = keeper.restore()
            work = Finetuning(
                values=values,
                model=name,
                network=network,
                stream=stream,
                settings=settings,
                validation_images=len(validation),
                done_images=0 if kept is None else kept["trainer"]["images_seen"],
            )
            for line in estimate(work):
                observer.say(line)
        done = finetune(network, stream, validation, settings, observer=observer, keeper=keeper)
        if not processes().is_first:
            return
        _write(name, source, done)
    last = done.rows[-1]
    observer.say(
        f"{paths.finetuned(name)}: validation accuracy {last.validation_accuracy:.2f} % after"
        f" {last.epoch} epochs"
    )


def _write(name: str, source: Checkpoint, done: Finetuned) -> None:
    last = done.rows[-1]
    seconds = round(sum(row.seconds for row in done.rows), 3)
    history: dict[str, Any] = {"epochs": last.epoch, "images_seen": last.images_seen}
    if done.converged is not None:
        history["converged"] = done.converged
    save_checkpoint(
        paths.finetuned(name),
        source.architecture,
        done.network,
        source.notes | {"finetune": history | {"validation_accuracy": last.validation_accuracy}},
    )
    write_text(paths.finetune_table(name), epochs_to_csv(done.rows))
    kept = ("validation_accuracy", "validation_loss", "train_loss", "images_seen")
    figures = {key: value for key, value in asdict(last).items() if key in kept}
    write_json(paths.finetune_metrics(name), figures | history | {"seconds": seconds})
