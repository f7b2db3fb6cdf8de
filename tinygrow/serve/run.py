"""The life of a server: from binding a port to the last answer."""

import asyncio
import signal
from collections.abc import Callable

from aiohttp import web

from tinygrow.errors import TinygrowError
from tinygrow.serve.app import RUNNER, Service

SECONDS_TO_FINISH = 10.0
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def serve(service: Service, host: str, port: int, *, ready: Callable[[str], None]) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; requests that are being answered are finished.

    Args:
        service: of the model.
        host: name or address to bind.
        port: 0: one that is free.
        ready: called with the page's address once connections are accepted.

    Returns:
        The exit status by convention: 128 and the number of the signal.

    Raises:
        TinygrowError: the address cannot be bound.
    """
    return 128 + asyncio.run(_serve(service, host, port, ready))


async def _serve(service: Service, host: str, port: int, ready: Callable[[str], None]) -> int:
    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with_handlers = _listen(stopped)
    runner = web.AppRunner(service.application(), shutdown_timeout=SECONDS_TO_FINISH, **RUNNER)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            raise TinygrowError(
                f"cannot serve on port {port} of {host} ({_reason(error)}); choose others with"
                " --port and --host"
            ) from error
        bound = runner.addresses[0][1]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{bound}/")
        return await stopped
    finally:
        await runner.cleanup()
        for number in with_handlers:
            asyncio.get_running_loop().remove_signal_handler(number)


def _listen(stopped: asyncio.Future[int]) -> list[int]:
    """Turn signals into the result of `stopped`; those the process was told to ignore stay so."""

    def stop(number: int) -> None:
        if not stopped.done():
            stopped.set_result(number)

    loop = asyncio.get_running_loop()
    handled = []
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop, int(number))
            handled.append(int(number))
    return handled


def _reason(error: OSError | OverflowError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
