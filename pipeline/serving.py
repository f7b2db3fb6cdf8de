"""The command that serves a product."""

import click


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.option("-m", "--model", metavar="NAME|FILE", help="The same, or an .onnx file.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    help="Which product of a model under models/.",
)
@click.option(
    "--provider",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    help="What ONNX Runtime runs on.",
)
@click.option("--host", default="127.0.0.1", help="Address to bind; the default is this machine's.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="0: one that is free.")
@click.option(
    "--megabytes",
    type=click.FloatRange(min=0, max=1024, min_open=True),
    default=10.0,
    help="Largest image file.",
)
@click.option(
    "--megapixels",
    type=click.FloatRange(min=0, max=89, min_open=True),
    default=25.0,
    help="Largest image; decoding takes up to 16 MB for each, on each core.",
)
@click.option(
    "--requests",
    type=click.IntRange(1),
    default=16,
    help="Predictions at one time; more are refused with 503.",
)
@click.pass_context
def serve(
    ctx: click.Context,
    name: str | None,
    model: str | None,
    precision: str,
    provider: str,
    host: str,
    port: int,
    megabytes: float,
    megapixels: float,
    requests: int,
) -> None:
    """Serve the model NAME: an API, and a page that classifies in the browser.

    POST /predict takes the bytes of an image file and answers in JSON. GET /health, /metrics
    (Prometheus), /contract.json and /model.onnx. The page at / is built by `make web`; images that
    are dropped on it never leave the browser. Ctrl-C stops, after the answers under way.

    \b
    Examples:
      python -m pipeline serve demo
      python -m pipeline serve --model packages/demo/int8.onnx --port 9000
      curl --data-binary @photo.png http://127.0.0.1:8000/predict
    """  # noqa: D301 - click's mark is the control character itself
    if name is not None and model is not None:
        raise click.UsageError("NAME and --model are two ways to say the same; give one")
    from pipeline.serve import run

    status = run(
        model if name is None else name,
        precision=precision,
        provider=provider,
        host=host,
        port=port,
        megabytes=megabytes,
        megapixels=megapixels,
        requests=requests,
        say=click.echo,
        warn=lambda text: click.echo(text, err=True),
    )
    ctx.exit(status)
