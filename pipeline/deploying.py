"""Commands for what comes after the pipeline: to use, to time and to pack products."""

from pathlib import Path

import click

from pipeline.commands import checked, model_argument
from pipeline.program import expected
from tinygrow.errors import TinygrowError
from tinygrow.settings.check import MAX_BATCH


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@click.option(
    "-m",
    "--model",
    metavar="NAME|FILE",
    help="A model under models/, or an .onnx file. Default: the only one under models/.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    help="Which product of a model under models/.",
)
@click.option("-k", "--top-k", type=click.IntRange(1), default=3, help="Classes named an image.")
@click.option(
    "--provider",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    help="What ONNX Runtime runs on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an image.")
@click.pass_context
def predict(
    ctx: click.Context,
    images: tuple[str, ...],
    model: str | None,
    precision: str,
    top_k: int,
    provider: str,
    as_json: bool,
) -> None:
    """Name the class of each IMAGE, by ONNX Runtime alone.

    IMAGE is a file, or a folder: all images in it and in its folders, but nothing hidden. Of an
    image that cannot be read, a line says why; the others are answered, and the exit code is 1.

    \b
    Examples:
      python -m pipeline predict reports/demo/samples
      python -m pipeline predict --model demo --precision int8 --json photo.jpg
    """  # noqa: D301 - click's mark is the control character itself
    from pipeline.predict import lines
    from pipeline.progress import TerminalObserver

    # Elsewhere than on a terminal the answers themselves tell how far it is.
    observer = TerminalObserver(quiet=True)
    failed = False
    try:
        for line in lines(
            images,
            model=model,
            precision=precision,
            top_k=top_k,
            provider=provider,
            as_json=as_json,
            observer=observer,
        ):
            if isinstance(line, TinygrowError):
                observer.say(f"Error: {expected(line)}")
                failed = True
            else:
                observer.answer(line)
    finally:
        observer.close()
    ctx.exit(1 if failed else 0)


@click.command()
@model_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def certify(ctx: click.Context, model: str, as_json: bool) -> None:
    """Check the certificate of MODEL: that its product computes what the network before did.

    MODEL is a name under models/, or a folder with certificate.json, uncompressed.onnx and the fp32
    product. By numpy and onnx alone: bounds are recomputed, rewrites are replayed, and the result
    is compared with the product. What rests on a solver's word is counted as trusted. The exit code
    is 1 where anything is refused.

    \b
    Examples:
      python -m pipeline certify demo
      python -m pipeline certify packages/demo --json
    """  # noqa: D301 - click's mark is the control character itself
    import json

    from pipeline import certify as work

    found = work.certify(model)
    for line in [json.dumps(found.to_dict())] if as_json else work.lines(found):
        click.echo(line)
    ctx.exit(0 if found.accepted else 1)


@click.command()
@model_argument
@click.option(
    "-b",
    "--batch",
    "batches",
    type=click.IntRange(1, MAX_BATCH),
    multiple=True,
    default=(1, 8, 64, 256),
    help="Images a call; may be given again.",
)
@click.option("--runs", type=click.IntRange(1), default=200, help="Timed calls of each cell.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Time for everything; cells that it cuts are told. 0: no limit.",
)
@click.option("--threads", type=click.IntRange(0), default=0, help="Of the CPU; 0: all cores.")
@click.option(
    "--provider",
    "providers",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    multiple=True,
    help="Of ONNX Runtime; may be given again. Default: each that runs here.",
)
@click.option("--pytorch/--no-pytorch", default=True, help="Measure PyTorch as well.")
@click.option("--compile/--no-compile", "compiled", default=True, help="And torch.compile.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the files go; default: metrics/MODEL/benchmark.",
)
def benchmark(
    model: str,
    batches: tuple[int, ...],
    runs: int,
    minutes: float,
    threads: int,
    providers: tuple[str, ...],
    pytorch: bool,
    compiled: bool,
    output: Path | None,
) -> None:
    """Time the products of MODEL beside PyTorch on the same images.

    Prints latency (median, 90th and 99th percentile) of the smallest batch and images per second of
    each, for every published product, every provider of ONNX Runtime that runs, PyTorch eager in
    two layouts and compiled. Writes metrics/MODEL/benchmark/benchmark.json, .csv and .svg; the
    model card of `package` tells the medians.

    \b
    Examples:
      python -m pipeline benchmark demo
      python -m pipeline benchmark demo --batch 1 --batch 64 --minutes 2 --no-compile
    """  # noqa: D301 - click's mark is the control character itself
    observer = checked("models", model)
    from pipeline import benchmark as work
    from tinygrow.benchmark.measure import Plan

    plan = Plan(batches=tuple(sorted(set(batches))), runs=runs, seconds=60 * minutes)
    for line in work.run(
        model,
        plan,
        threads=threads,
        providers=providers,
        pytorch=pytorch,
        compiled=compiled,
        output=output,
        observer=observer,
    ):
        click.echo(line)


@click.command()
@model_argument
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder; default: packages/MODEL. An older package there is replaced.",
)
@click.option("--triton", is_flag=True, help="With a model repository for Triton.")
@click.option("--docker", is_flag=True, help="With a Dockerfile for the CPU.")
@click.option(
    "--licence", default="", metavar="SPDX", help="Licence that the model card states, if any."
)
def package(model: str, output: Path | None, triton: bool, docker: bool, licence: str) -> None:
    """Pack MODEL for use elsewhere.

    Writes a folder and, beside it, the same as .tar.gz: the published products with their verdicts,
    a model card, predict.py, which needs onnxruntime, numpy and pillow alone, sample images with
    expected outputs, and checksums.

    \b
    Examples:
      python -m pipeline package demo
      python -m pipeline package demo --triton --docker --output out/demo-1.0
    """  # noqa: D301 - click's mark is the control character itself
    observer = checked("models", model)
    from pipeline import package as work

    work.run(model, output=output, triton=triton, docker=docker, licence=licence, observer=observer)
