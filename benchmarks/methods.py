"""Accuracy against parameters, one growth a method and seed: `python -m benchmarks.methods OUT`.

Every variant changes a few settings of one base configuration: a small residual network on a part
of CIFAR-10, grown in sweeps, then trained on for some epochs; beside them the narrow network that
never grows and the full width from scratch. All see equally many images in training. A finished
run is a file of its own in OUT: what is there is skipped, so that seeds and variants can be added.

    python -m benchmarks.methods OUT --data cifar10.pt --seeds 0 1
    python -m benchmarks.methods OUT --picture docs/results/methods

`--extra NAME KEY=VALUE ...` adds a variant without a change here, keys with dots as in
`params.yaml`, under `growth`.
"""

import argparse
import ast
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.images import Images, make_runs
from benchmarks.methods_report import write_report
from benchmarks.timing import surroundings
from tinygrow.architecture import final_architecture, seed_architecture
from tinygrow.errors import TinygrowError
from tinygrow.growth.grow import grow
from tinygrow.networks.build import build_network
from tinygrow.networks.cost import count_multiply_adds, count_parameters
from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings, StatisticsSettings
from tinygrow.settings.network import ResNetSettings
from tinygrow.settings.training import FinetuneSettings, TrainingSettings
from tinygrow.training.batches import TrainingStream
from tinygrow.training.device import pick_device
from tinygrow.training.evaluate import evaluate
from tinygrow.training.finetune import finetune

RECIPE = TrainingSettings(
    learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, batch_size=64
)

Overrides = Mapping[str, Any]

VARIANTS: dict[str, Overrides] = {
    "tiny": {},
    "tiny-raw": {"solver.projection": False},
    "whitened": {"method": "whitened"},
    "gradmax": {"method": "gradmax"},
    "firefly": {"method": "firefly"},
    "net2wider": {"method": "net2wider"},
    "random": {"method": "random"},
    "random-zero": {"method": "random_zero"},
    "random-pairs": {"method": "random_pairs"},
    "random-variance": {"method": "random_variance"},
    "never": {"method": "none"},
    "scratch": {"method": "none"},
}
"""Settings of growth that differ from the base. `scratch` begins at the full width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all variants share.

    Attributes:
        train_images: of the training images.
        validation_images: others of them, held out.
        test_images: looked at once, when a run is finished.
        network: shape and start.
        growth: the base configuration.
        further_epochs: after growth, with the learning rate falling to zero.
    """

    train_images: int = 8000
    validation_images: int = 1000
    test_images: int = 10_000
    network: ResNetSettings = field(
        default_factory=lambda: ResNetSettings(base_width=8, blocks=(1, 1, 1, 1), start=0.25)
    )
    growth: GrowthSettings = field(
        default_factory=lambda: GrowthSettings(
            extensions=6,
            epochs_between=0.25,
            batch_growth="constant",
            optimizer_state="pad",
            statistics=StatisticsSettings(max_images=500),
            amplitude=AmplitudeSettings(images=300, smallest_exponent=-10),
            training=RECIPE,
        )
    )
    further_epochs: int = 4


def overridden(settings: Any, overrides: Overrides) -> Any:
    """Return settings with values replaced, by dotted names such as `solver.projection`.

    Raises:
        TinygrowError: there is no such setting.
    """
    for name, value in overrides.items():
        head, _, rest = name.partition(".")
        if not is_dataclass(settings) or head not in {f.name for f in fields(settings)}:
            raise TinygrowError(f"{name} is no setting of {type(settings).__name__}")
        if rest:
            value = overridden(getattr(settings, head), {rest: value})
        settings = replace(settings, **{head: value})
    return settings


def one_run(
    variant: str, overrides: Overrides, seed: int, images: Images, setup: Setup
) -> dict[str, Any]:
    """Grow and train one network; return its record as plain values."""
    settings = overridden(setup.growth, overrides)
    final = final_architecture(setup.network, images.card.shape, len(images.card.classes))
    start = final if variant == "scratch" else seed_architecture(setup.network, final)
    device = images.train.device
    network = build_network(start, seed).to(device, memory_format=torch.channels_last)
    stream = TrainingStream(images.train, settings.training.augmentation, seed)
    # Of the processor: a run may be paused, or share the machine with others.
    where, began = surroundings(device), time.process_time()
    grown = grow(network, start, final, stream, images.validation, settings, seed=seed)
    rows = grown.rows
    further = FinetuneSettings(
        epochs=setup.further_epochs,
        max_epochs=0,
        training=replace(settings.training, schedule="cosine"),
    )
    done = finetune(grown.network, stream, images.validation, further)
    seconds = time.process_time() - began
    falls = [
        100.0 * (row.loss_before - row.loss_after) / row.loss_before
        for row in rows
        if row.loss_before is not None and row.loss_after is not None
    ]
    return {
        "variant": variant,
        "overrides": dict(overrides),
        "seed": seed,
        "curve": [  # the seed network, and every training
            {
                "parameters": row.parameters,
                "multiply_adds": row.multiply_adds,
                "images_seen": row.images_seen,
                "widths": list(row.widths),
                "validation_accuracy": row.validation_accuracy,
                "train_loss": row.train_loss,
            }
            for row in rows
            if row.extension == 0 or row.train_loss is not None
        ],
        "further": [asdict(row) for row in done.rows],
        "falls": falls,
        "parameters": count_parameters(done.network),
        "multiply_adds": count_multiply_adds(done.network, images.card.shape),
        "growth_accuracy": rows[-1].validation_accuracy,
        "validation_accuracy": done.rows[-1].validation_accuracy,
        "test_accuracy": evaluate(done.network, images.test)[1],
        "image_passes": rows[-1].images_seen + done.rows[-1].images_seen,
        "statistics_images": rows[-1].statistics_images,
        "seconds": seconds,
        "where": where,
    }


def extra_variants(words: Sequence[Sequence[str]]) -> dict[str, Overrides]:
    """Read variants as the command line gives them: a name, then KEY=VALUE."""
    found: dict[str, Overrides] = {}
    for name, *pairs in words:
        overrides: dict[str, Any] = {}
        for pair in pairs:
            key, equals, text = pair.partition("=")
            if not equals:
                raise TinygrowError(f"{pair!r} is no KEY=VALUE")
            try:
                overrides[key] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                overrides[key] = {"true": True, "false": False}.get(text, text)
        found[name] = overrides
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what runs are missing, or the picture and the table of those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--data", type=Path, help="prepared *.safetensors, or *.pt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--variants", nargs="+", help="default: all")
    parser.add_argument("--extra", nargs="+", action="append", default=[], metavar="WORD")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--picture", type=Path, metavar="FOLDER", help="write picture and table")
    options = parser.parse_args(arguments)
    setup = Setup()
    try:
        if options.picture:
            seeds = "--seeds " + " ".join(map(str, options.seeds))
            data = options.data.name if options.data else "FILE"
            made = f"python -m benchmarks.methods RUNS --data {data} {seeds}"
            drawn = f"python -m benchmarks.methods RUNS --picture {options.picture}"
            print(write_report(options.out, options.picture, (made, drawn)))
            return 0
        if options.data is None:
            parser.error("--data is needed for runs")
        extra = extra_variants(options.extra)
        known = VARIANTS | extra
        chosen = options.variants or (list(extra) if extra else list(VARIANTS))
        unknown = [name for name in chosen if name not in known]
        if unknown:
            parser.error(f"there is no variant {unknown[0]}; there are {', '.join(known)}")
        for name in chosen:
            overridden(setup.growth, known[name])  # before hours of work
        device = pick_device(options.device)
        for variant, seed, record in make_runs(
            options.out,
            chosen,
            options.seeds,
            setup,
            options.data,
            device,
            lambda name, seed, images: one_run(name, known[name], seed, images, setup),
        ):
            print(
                f"{variant} seed {seed}: validation {record['validation_accuracy']:.2f} %,"
                f" {record['parameters']:,} parameters, {record['seconds']:.0f} s",
                flush=True,
            )
    except TinygrowError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
