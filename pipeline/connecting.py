"""The command that tells how a network is wired."""

from pathlib import Path

import click


@click.command()
@click.argument("model", metavar="MODEL|FUNCTION|FILE|space")
@click.option("--strict", is_flag=True, help="Fail on dead paths: layers that nothing reads.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw the wiring into this .svg or .png file.",
)
@click.option(
    "--against",
    metavar="MODEL|FUNCTION|FILE",
    help="Compare the bounds of two networks of equal parameters: weak evidence, and said so.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@click.option(
    "--shape",
    metavar="C,H,W",
    help="Of the images that a network of PyTorch reads. Default: those of the model's data set;"
    " for a FUNCTION 3,32,32.",
)
@click.option("--classes", type=click.IntRange(2), help="Of a FUNCTION; default: 10.")
@click.option(
    "--repeats", type=click.IntRange(2), default=200, help="Of each random search of `space`."
)
def connectivity(
    model: str,
    strict: bool,
    picture: Path | None,
    against: str | None,
    as_json: bool,
    shape: str | None,
    classes: int | None,
    repeats: int,
) -> None:
    """Tell how a network is wired, before it is trained.

    Counts the paths from input to output by their depth and prints, for each segment between
    values that all paths go through, effective depth and width, the bound of Chen et al. (NeurIPS
    2022) and what the evidence supports saying. MODEL is a block of params.yaml, FUNCTION a
    package.module:function that returns a PyTorch module, FILE an .onnx file. The word `space`
    prints what the paper's filter keeps of NAS-Bench-201's cells. See docs/connectivity.md.

    \b
    Examples:
      python -m pipeline connectivity demo --picture demo.svg
      python -m pipeline connectivity torchvision.models:resnet18 --shape 3,64,64
      python -m pipeline connectivity models/demo/products/fp32.onnx --strict --json
      python -m pipeline connectivity space
    """  # noqa: D301 - click's mark is the control character itself
    from pipeline import connectivity as work

    lines = (
        work.space_lines(as_json=as_json, repeats=repeats)
        if model == "space"
        else work.lines(
            model,
            strict=strict,
            picture=picture,
            against=against,
            as_json=as_json,
            shape=shape,
            classes=classes,
        )
    )
    for line in lines:
        click.echo(line)
