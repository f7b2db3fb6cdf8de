"""A web server of this machine that answers well, or as badly as it is told."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE = 60.0  # seconds after which a test that hangs ends


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one request is answered; by default well, with the range that is asked for.

    Attributes:
        status: 200 stands for 206 where a range is asked for.
        content: instead of the server's own.
        ranges: whether ranges are known.
        at: where the range begins that is sent, instead of the one asked for.
        cut: bytes of the body after which the connection ends.
        stall: bytes of the body after which nothing comes until `Server.go_on`; -1: not even the
            head of the answer.
        form: how the body's end is told: by its `length`, by `chunks`, or by the connection's end.
        headers: further ones.
    """

    status: int = 200
    content: bytes | None = None
    ranges: bool = True
    at: int | None = None
    cut: int | None = None
    stall: int | None = None
    form: str = "length"
    headers: dict[str, str] = field(default_factory=dict)


class Server:
    """Answers requests one after another as `script` says, then well.

    Attributes:
        content: of every path.
        script: answers to come.
        asked: path and headers of each request.
        go_on: ends every stall.
    """

    def __init__(self, content: bytes, script: Sequence[Answer] = ()) -> None:
        self.content = content
        self.script = list(script)
        self.asked: list[tuple[str, Message]] = []
        self.go_on = threading.Event()
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self.url = f"{self.address}/archive.tar.gz"

    @property
    def ranges(self) -> list[str | None]:
        """The ranges that were asked for."""
        return [headers["Range"] for _, headers in self.asked]

    def next(self, path: str, headers: Message) -> Answer:
        with self._lock:
            self.asked.append((path, headers))
            return self.script.pop(0) if self.script else Answer()

    def start(self) -> None:
        # A short poll, or each shutdown takes half a second.
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.go_on.set()
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def serving(content: bytes, *script: Answer) -> Iterator[Server]:
    """Serve for the time of the block."""
    server = Server(content, script)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class _Http(ThreadingHTTPServer):
    owner: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        owner = self.server.owner
        answer = owner.next(self.path, self.headers)
        if answer.stall == -1:
            owner.go_on.wait(PATIENCE)
        whole = owner.content if answer.content is None else answer.content
        start, status = 0, answer.status
        asked = self.headers["Range"]
        if asked and answer.ranges and status == 200:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            start = start if answer.at is None else answer.at
            status = 206 if start < len(whole) else 416
        body = whole[start:] if status in (200, 206) else b"an error page"
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        if answer.form == "length":
            self.send_header("Content-Length", str(len(body)))
        elif answer.form == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        end = len(body) if answer.cut is None else answer.cut
        pause = end if answer.stall in (None, -1) else min(answer.stall, end)
        self._send(body[:pause], answer)
        if answer.stall is not None:
            owner.go_on.wait(PATIENCE)
        self._send(body[pause:end], answer)
        if answer.form == "chunks" and answer.cut is None:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, body: bytes, answer: Answer) -> None:
        if not body:
            return
        if answer.form == "chunks":
            body = b"%x\r\n%b\r\n" % (len(body), body)
        self.wfile.write(body)
        self.wfile.flush()
