"""The command line. Whatever is slow to import is imported by the command that needs it."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from pipeline.commands import checked, model_argument
from pipeline.connecting import connectivity
from pipeline.deploying import benchmark, certify, package, predict
from pipeline.process import share_cores, terminate
from pipeline.program import Program
from pipeline.serving import serve
from pipeline.stopping import parents

EPILOG = (
    "Exit codes: 0 done, 1 expected failure (one line says what, the value, the remedy), 2 wrong"
    " usage, 129 terminal closed, 130 interrupted, 143 terminated."
)


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from pipeline.doctor import version_of

        click.echo(f"tinygrow {version_of('tinygrow')}")
        ctx.exit()


@click.group(
    cls=Program,
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
)
@click.option(
    "-C",
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Work in this folder: the one that holds params.yaml.",
)
@click.option("-v", "--traceback", is_flag=True, help="Show where an expected failure arose.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and stop.",
)
def cli(directory: Path, traceback: bool) -> None:
    """Grow small networks into models and ship them as validated ONNX files.

    One command for each stage of the pipeline; `dvc repro` runs them in order and skips what is up
    to date. MODEL and NAME are blocks of params.yaml. See `COMMAND --help` for each.
    """
    os.chdir(directory)
    if str(Path.cwd()) not in sys.path:  # networks of the user's are imported from here
        sys.path.insert(0, str(Path.cwd()))


def _device(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda or cuda:N, instead of what params.yaml says.",
    )(command)


def _minutes(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--save-every",
        "minutes",
        type=click.FloatRange(min=0),
        metavar="MINUTES",
        envvar="TINYGROW_SAVE_EVERY",
        help="Time between two saves of the state that an interrupted run goes on from; 3 unless"
        " given. Also by the environment variable TINYGROW_SAVE_EVERY.",
    )(command)


def _launch(
    stage: str,
    model: str,
    device: str | None,
    minutes: float | None,
    started_by: list[int] | None,
) -> None:
    """Leave the stage to several processes, and end with their status, if that is asked for."""
    from pipeline import workers

    context = click.get_current_context()
    arguments = ["--traceback"] if context.find_root().params["traceback"] else []
    arguments += [stage, model]
    arguments += [] if device is None else ["--device", device]
    arguments += [] if minutes is None else ["--save-every", str(minutes)]
    status = workers.launched(model, device, arguments, started_by)
    if status is not None:
        context.exit(status)


@cli.command()
@click.argument("name")
def download(name: str) -> None:
    """Prepare the images of the data set NAME.

    Writes data/NAME.safetensors: uint8 images of a training, a validation and a test split.
    """
    observer = checked("data", name)
    from pipeline.stages import download as stage

    stage.run(name, observer=observer)


@cli.command()
@model_argument
@_device
@_minutes
@click.pass_obj
def grow(
    started_by: list[int] | None, model: str, device: str | None, minutes: float | None
) -> None:
    """Grow MODEL from its seed to its full width.

    Writes models/MODEL/grown.safetensors and growth.json, and the log metrics/MODEL/growth.csv.

    Interrupted (Ctrl-C, SIGTERM, a dead DVC) or killed, it goes on where it was when it is run
    again with the same settings, inputs and code.
    """
    observer = checked("models", model)
    _launch("grow", model, device, minutes, started_by)
    from pipeline import workers
    from pipeline.estimates import grow_lines
    from pipeline.stages import grow as stage

    with workers.member(observer, started_by) as (observer, stop):
        stage.run(
            model,
            observer=observer,
            device=device,
            stop=stop,
            minutes=minutes,
            estimate=workers.of_the_first(grow_lines),
        )


@cli.command()
@model_argument
@_device
@_minutes
@click.pass_obj
def finetune(
    started_by: list[int] | None, model: str, device: str | None, minutes: float | None
) -> None:
    """Train the grown MODEL at full width.

    Writes models/MODEL/finetuned.safetensors and the log metrics/MODEL/finetune.csv.

    Interrupted (Ctrl-C, SIGTERM, a dead DVC) or killed, it goes on where it was when it is run
    again with the same settings, inputs and code.
    """
    observer = checked("models", model)
    _launch("finetune", model, device, minutes, started_by)
    from pipeline import state, workers
    from pipeline.estimates import finetune_lines
    from pipeline.stages import finetune as stage

    state.drop("grow", model)
    with workers.member(observer, started_by) as (observer, stop):
        stage.run(
            model,
            observer=observer,
            device=device,
            stop=stop,
            minutes=minutes,
            estimate=workers.of_the_first(finetune_lines),
        )


@cli.command()
@model_argument
def compress(model: str) -> None:
    """Take out of MODEL what provably never matters.

    Units that are on one side of zero for every possible image are looked for, and what they make
    superfluous is removed: the network computes the same. Often there is nothing, and it goes on as
    it is. Writes models/MODEL/compressed.safetensors, certificate.json and, for the certificate,
    uncompressed.onnx.
    """
    observer = checked("models", model)
    from pipeline import state
    from pipeline.stages import compress as stage

    state.drop("finetune", model)
    stage.run(model, observer=observer)


@cli.command()
@model_argument
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Another checkpoint of MODEL, such as one of models/MODEL/snapshots; needs --output.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Where its ONNX file goes.")
def export(model: str, checkpoint: Path | None, output: Path | None) -> None:
    """Write MODEL as self-contained ONNX files, one a precision.

    Writes models/MODEL/exported/fp32.onnx, fp16.onnx and int8.onnx: uint8 images in, logits out,
    normalisation inside. Another checkpoint is written in fp32 alone.

    Another checkpoint is measured on the test images as well: for information, never for choosing
    one by it. Of growth only snapshot 000, the seed, is kept unless params.yaml says
    `growth.snapshots: true`.

    \b
    Example, of a snapshot of growth (needs `growth.snapshots: true`):
      python -m pipeline export demo --checkpoint models/demo/snapshots/012.safetensors \\
          --output demo-012.onnx
    """  # noqa: D301 - click's mark is the control character itself
    if (checkpoint is None) != (output is None):
        raise click.UsageError("--checkpoint and --output go together")
    observer = checked("models", model)
    from pipeline.stages import export as stage

    stage.run(model, observer=observer, checkpoint=checkpoint, output=output)


@cli.command()
@model_argument
def validate(model: str) -> None:
    """Put the ONNX files of MODEL through the gate.

    Those that pass are published in models/MODEL/products, with a sidecar; those that do not are
    left out, with the reason. Fails if one of `validate.required` does not pass. Writes
    metrics/MODEL/validate.json with each check's numbers.
    """
    observer = checked("models", model)
    from pipeline.stages import validate as stage

    stage.run(model, observer=observer)


@cli.command()
@model_argument
def report(model: str) -> None:
    """Draw the page of MODEL.

    What was built, how it grew, how good and how fast it is. Writes reports/MODEL/index.html, which
    works offline, and sample images beside it.
    """
    observer = checked("models", model)
    from pipeline.stages import report as stage

    stage.run(model, observer=observer)


for command in (predict, benchmark, certify, package, serve, connectivity):
    cli.add_command(command)


@cli.command("clean-state")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--remove", is_flag=True, help="Remove the old states.")
@click.option("--all", "everything", is_flag=True, help="With --remove: the others too.")
def clean_state(models: tuple[str, ...], remove: bool, everything: bool) -> None:
    """List the saved states of runs, and remove old ones.

    A state is old if its run had other settings than the present params.yaml, other inputs or other
    code: no run goes on from it unless they come back, as those of an experiment (dvc exp run -S)
    may. The states lie in .state/. Those that a process works on are left alone.
    """
    if everything and not remove:
        raise click.UsageError("--all goes with --remove")
    from pipeline import params, schema
    from pipeline.clean_state import clean, line, list_states

    values = params.read()
    schema.check(values)
    count = old = 0
    for kept in list_states(values, models):
        count, old = count + 1, old + bool(kept.old)
        gone = remove and not kept.busy and (everything or bool(kept.old))
        if gone:
            clean(kept)
        click.echo(f"{'removed  ' if gone else ''}{line(kept)}")
    if not count:
        click.echo("no saved states")
    elif old and not remove:
        click.echo(f"{old} of {count} old; remove with: python -m pipeline clean-state --remove")


@cli.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Say what works on this machine and what to fix.

    Looks at versions, devices, programs and disk, and tries each provider of ONNX Runtime. Exits
    with 1 if something that the pipeline needs is missing.
    """
    from pipeline.doctor import examine

    broken = False
    for finding in examine():
        click.echo(f"{finding.mark:4}  {finding.name:22}  {finding.detail}")
        broken = broken or finding.mark == "FIX"
    ctx.exit(1 if broken else 0)


def main() -> None:
    """Run the command line of `sys.argv`."""
    share_cores()
    signal.signal(signal.SIGTERM, terminate)
    cli(obj=parents())
