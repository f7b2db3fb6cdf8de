"""`serve`: one product behind HTTP, with a page; never imports torch."""

import ipaddress
from collections.abc import Callable

from pipeline.predict import find_model
from tinygrow.errors import TinygrowError


def run(
    model: str | None,
    *,
    precision: str,
    provider: str,
    host: str,
    port: int,
    megabytes: float,
    megapixels: float,
    requests: int,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> int:
    """Serve until a signal; return the exit status.

    Args:
        model: see `find_model`.
        precision: likewise.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        host: name or address to bind.
        port: 0: one that is free.
        megabytes: of one image file, in MiB.
        megapixels: of one image.
        requests: at one time.
        say: told when the server is ready and when it has stopped.
        warn: told what is worth a thought.

    Raises:
        TinygrowError: there is no such model, aiohttp is not installed, or the port is taken.
    """
    path = find_model(model, precision)
    try:
        from tinygrow.serve.app import Service
        from tinygrow.serve.limits import Limits
        from tinygrow.serve.run import serve
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise TinygrowError(
            "aiohttp is not installed, and the server needs it; run pip install 'tinygrow[serve]'"
        ) from error
    limits = Limits(bytes=int(megabytes * 2**20), pixels=int(megapixels * 1e6), requests=requests)
    service = Service(path, provider, limits=limits)
    if not _is_loopback(host):
        warn(
            f"Warning: {host} may be reached from other machines, without password or encryption;"
            " put a proxy that has both in front"
        )

    def ready(address: str) -> None:
        page = "a page" if service.has_page else "no page (`make web` builds it)"
        say(
            f"{address} serves {path} on {service.predictor.provider}:"
            f" {page}, POST /predict, /health, /metrics"
        )

    status = serve(service, host, port, ready=ready)
    answers = service.metrics.answers
    say(f"Stopped; {answers[200]} predictions, {answers.total() - answers[200]} refused.")
    return status


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
