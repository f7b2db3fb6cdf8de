"""How the command line ends: done, stopped, or with one line on what failed."""

import errno
from contextlib import suppress
from typing import Any

import click

from tinygrow.errors import TinygrowError
from tinygrow.state.stop import Stop

INTERRUPTED = 130


class Program(click.Group):
    """A group that turns expected failures into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the pipeline."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; let only bugs through with a traceback."""
        try:
            return super().invoke(ctx)
        except Stop as stop:
            kept = "nothing was saved yet; run it again"
            if stop.saved is not None:
                kept = f"saved: {stop.saved}. The same command, or dvc repro, goes on from there"
            with suppress(OSError):  # the terminal may be gone
                click.echo(f"\nStopped ({stop.reason}); {kept}.", err=True)
            ctx.exit(stop.status)
        except KeyboardInterrupt:
            click.echo("\nInterrupted; outputs are whole or absent. Run it again.", err=True)
            ctx.exit(INTERRUPTED)
        except Exception as error:
            message = expected(error)
            if message is None or ctx.params["traceback"]:
                raise
            raise click.ClickException(message) from error


def expected(error: Exception) -> str | None:
    """Return the line that tells of an expected failure, or nothing: the error is a bug."""
    if isinstance(error, TinygrowError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE):
        where = f" ({error.filename})" if error.filename else ""
        remedy = (
            "free disk space and run it again"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "check the path and its permissions"
        )
        return f"{error.strerror}{where}; {remedy}"
    # torch's class by its name, for this module never imports torch.
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    ):
        return (
            "out of memory; lower the images' size, base_width (or hidden), batch_size, batch_sizes"
            " or chunk_megabytes in params.yaml, or take a machine or device with more"
        )
    return None
