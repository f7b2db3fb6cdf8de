"""Stage `download`: images from their source, prepared as one file of uint8 tensors."""

from pathlib import Path

from pipeline import params as parameters
from pipeline import paths
from pipeline.sections.data import data_settings
from tinygrow.data.prepare import prepare
from tinygrow.observer import Observer


def run(name: str, *, observer: Observer) -> None:
    """Prepare the data set `name`.

    Args:
        name: of a block under `data` in `params.yaml`.
        observer: told of progress.
    """
    settings = data_settings(parameters.read(), name)
    target = paths.prepared(name)
    card = prepare(name, settings, target, base=Path(), observer=observer)
    counts = ", ".join(f"{count} {split}" for split, count in card.counts.items())
    shape = "x".join(map(str, card.shape))
    observer.say(f"{target}: {counts} images of {shape} in {len(card.classes)} classes")
