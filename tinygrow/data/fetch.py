"""One known file from a web server, however bad the line: resumed, tried again, verified."""

import http.client
import os
import random
import re
import ssl
import time
import urllib.request as web
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.error import HTTPError, URLError

from tinygrow import __version__
from tinygrow.data.cache import cache_error, locked, md5_of
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer

_CHUNK = 2**18
_NEWS = 2**20  # bytes that make an attempt count as progress
_FIRST_WAIT = 1.0  # seconds
_LONGEST_WAIT = 60.0
_LONGEST_ASKED_WAIT = 300.0
_PASSING = (408, 425, 429)  # beside 500 to 599: later, the same request may do
_UNSATISFIABLE = 416
_PARTIAL = 206
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file on a web server whose content is known beforehand.

    Attributes:
        url: http or https; proxies are those of the environment (`https_proxy`, `no_proxy`).
        md5: of the content, in hexadecimal.
        max_bytes: more are refused.
        remedy: what to do where it cannot be had; ends the errors.
    """

    url: str
    md5: str
    max_bytes: int
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to go on.

    Attributes:
        attempts: tries in a row that bring nothing new, after which it is given up.
        timeout: seconds of silence after which a connection counts as dead.
        sleep: waits so many seconds.
    """

    attempts: int
    timeout: float
    sleep: Callable[[float], None] = time.sleep


def fetch(remote: Remote, target: Path, *, patience: Patience, observer: Observer) -> None:
    """Have the verified content of `remote` in `target`, from there if it lies there already.

    What has come is kept in `target`.part whatever happens, and the next call goes on from there;
    of several processes one downloads and the others wait for it.

    Args:
        remote: the file.
        target: where to; missing parent folders are made.
        patience: attempts and time.
        observer: is told of progress and of each failure.

    Raises:
        TinygrowError: no connection, refused by the server, another content than known beforehand,
            or a full disk. `target` is then as it was, or absent if it was damaged.
    """
    try:
        if _holds(target, remote.md5):
            return
        with locked(target, observer):
            _fetch_alone(remote, target, patience, observer)
    except OSError as error:
        raise cache_error(target, error) from error


def _fetch_alone(remote: Remote, target: Path, patience: Patience, observer: Observer) -> None:
    if _holds(target, remote.md5):
        return  # another process was faster
    if target.exists():
        observer.say(f"warning: {target} is damaged; it is fetched anew")
        target.unlink()
    part = target.with_name(f"{target.name}.part")
    if not _holds(part, remote.md5):
        _Download(remote, part, patience, observer).run()
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _holds(path: Path, md5: str) -> bool:
    return path.is_file() and md5_of(path) == md5


class _Failure(Exception):
    """An attempt failed in a way that another may not.

    Args:
        reason: for the user.
        wait: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


class _Download:
    """Attempts until `part` is whole and right."""

    def __init__(self, remote: Remote, part: Path, patience: Patience, observer: Observer) -> None:
        self._remote = remote
        self._part = part
        self._patience = patience
        self._observer = observer
        self._type = ""  # of the last answer's content
        self._jitter = random.Random()
        self._opener = web.OpenerDirector()
        # Not urllib's default ones, which let a server redirect to ftp.
        for handler in (
            web.ProxyHandler(),
            web.UnknownHandler(),
            web.HTTPHandler(),
            web.HTTPSHandler(),
            web.HTTPDefaultErrorHandler(),
            web.HTTPRedirectHandler(),
            web.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def run(self) -> None:
        """Download, or raise a `TinygrowError`."""
        failures, most, anew = 0, self._size(), False
        while True:
            try:
                surely_whole = self._attempt()
            except _Failure as failure:
                size = self._size()
                # Only what is more than ever before: a server that sends the same beginning again
                # and again must not be asked for ever.
                if size >= most + _NEWS:
                    failures, most = 0, size
                failures += 1
                self._wait(failure, failures)
                continue
            found, size = md5_of(self._part), self._size()
            if found == self._remote.md5:
                return
            self._part.unlink()
            if surely_whole or anew:
                raise self._error(
                    f"it sent {size:,} bytes of type {self._type} with md5 {found}, not"
                    f" {self._remote.md5}, and they are deleted"
                )
            self._observer.say(
                f"warning: what came has md5 {found}, not the right one; starting anew"
            )
            anew, most = True, 0

    def _attempt(self) -> bool:
        """Ask for what is missing and receive it.

        Returns:
            Whether all of it came in one piece of known length, so that the content is the server's
            and no accident.
        """
        have = self._size()
        with self._ask(have) as response:
            start, end, total = self._place(response, have)
            self._type = response.headers.get_content_type()
            size = self._receive(response, start, end)
        if total is not None and size < total:
            raise _Failure(f"the connection was cut after {size:,} of {total:,} bytes")
        return start == 0 and total is not None

    def _ask(self, have: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": f"tinygrow/{__version__}"}
        if have:
            # Without If-Range: the checksum says whether the parts belong together, also those of
            # two servers, while servers behind one name may not agree on the tags of one file.
            headers["Range"] = f"bytes={have}-"
        request = web.Request(self._remote.url, headers=headers)
        try:
            response = self._opener.open(request, timeout=self._patience.timeout)
        except HTTPError as error:
            with error:
                raise self._refusal(error, have) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._broken(error) from error
        assert isinstance(response, http.client.HTTPResponse)
        return response

    def _refusal(self, error: HTTPError, have: int) -> Exception:
        """Return what an answer of 300 or more means."""
        reason = f"the server answered {error.code} {' '.join(str(error.reason).split())}".strip()
        if error.code == _UNSATISFIABLE and have:
            self._part.unlink()
            return _Failure(f"{reason}: it has not so much; starting anew")
        if error.code in _PASSING or error.code >= 500:
            return _Failure(reason, _asked_wait(error.headers.get("Retry-After", "")))
        return self._error(reason)

    def _broken(self, error: Exception) -> Exception:
        """Return what a connection that fails or breaks means."""
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return self._error(f"its certificate is not valid ({cause.verify_message})")
        if isinstance(cause, TimeoutError):
            return _Failure(f"silence for {self._patience.timeout:g} s")
        if isinstance(cause, http.client.IncompleteRead):
            return _Failure("the connection was cut")
        if isinstance(cause, http.client.InvalidURL | ValueError):
            return self._error(f"it is, or leads to, no valid address ({cause})")
        text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return _Failure(" ".join(str(text).split()))

    def _place(
        self, response: http.client.HTTPResponse, have: int
    ) -> tuple[int, int | None, int | None]:
        """Return where the answer's content begins and ends and how long the file is, in bytes."""
        start, end, total = 0, response.length, response.length
        if response.status == _PARTIAL:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
            if match is None or int(match[1]) != have:
                self._part.unlink(missing_ok=True)
                raise _Failure("the server sent another part than asked for; starting anew")
            start, end = have, int(match[2]) + 1
            total = None if match[3] == "*" else int(match[3])
        elif response.status != http.client.OK:
            raise self._error(f"the server answered {response.status} {response.reason}")
        if total is not None and total > self._remote.max_bytes:
            raise self._too_large()
        return start, end, total

    def _receive(self, response: http.client.HTTPResponse, start: int, end: int | None) -> int:
        """Append to the part, or write it anew where `start` is 0; return its size."""
        size, name = start, self._part.stem
        with self._observer.work(f"download {name}", end - start if end else 0, "B"):
            try:
                with self._part.open("ab" if start else "wb") as file:
                    while end is None or size < end:
                        chunk = self._read(response, min(_CHUNK, (end or size + _CHUNK) - size))
                        if not chunk:
                            break
                        if size + len(chunk) > self._remote.max_bytes:
                            self._part.unlink()
                            raise self._too_large()
                        file.write(chunk)
                        size += len(chunk)
                        self._observer.advance(len(chunk))
            except OSError as error:
                raise cache_error(self._part, error, self._kept()) from error
        return size

    def _read(self, response: http.client.HTTPResponse, size: int) -> bytes:
        try:
            return response.read1(size)  # what is there: `read` would lose it if the line breaks
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error

    def _wait(self, failure: _Failure, failures: int) -> None:
        """Wait longer after each failure in a row, and not all clients alike; or give up."""
        attempts = self._patience.attempts
        if failures >= attempts:
            raise self._error(f"{failure.reason} (attempt {failures} of {attempts})")
        if failure.wait > _LONGEST_ASKED_WAIT:
            raise self._error(f"{failure.reason} and asks to come back in {failure.wait:.0f} s")
        longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(failures - 1, 10))
        wait = max(failure.wait, longest * self._jitter.uniform(0.5, 1.0))
        self._observer.say(
            f"{self._remote.url}: {failure.reason} (attempt {failures} of {attempts});"
            f" trying again in {wait:.1f} s{self._kept()}"
        )
        self._patience.sleep(wait)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _kept(self) -> str:
        size = self._size()
        return f" ({size / 1e6:.1f} MB are kept for going on from there)" if size else ""

    def _too_large(self) -> TinygrowError:
        return self._error(f"it has more than {self._remote.max_bytes:,} bytes, the limit")

    def _error(self, reason: str) -> TinygrowError:
        return TinygrowError(
            f"cannot download {self._remote.url}: {reason}{self._kept()}; {self._remote.remedy}"
        )


def _asked_wait(value: str) -> float:
    """Return the seconds of a `Retry-After`, a number or a date; 0 of what is neither."""
    if value.strip().isdecimal():
        return float(value)
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
