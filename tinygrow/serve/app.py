"""The HTTP side of one model: predictions, health, metrics, and what the page reads."""

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tinygrow.deploy.predictor import Prediction, Predictor
from tinygrow.errors import TinygrowError
from tinygrow.serve.limits import Limits, Refused, check_pixels
from tinygrow.serve.metrics import CONTENT_TYPE, Metrics
from tinygrow.serve.page import CONTENT_TYPES, FOLDER, HEADERS, REMEDY, page_files

_LOG = logging.getLogger(__name__)
_TOP = 5


def _own_faults(record: logging.LogRecord) -> bool:
    """Say whether a record tells of more than a request that is no HTTP."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


# aiohttp writes a traceback for whatever does not parse; anyone who can reach the port could fill
# the log with them. The client is told, with status 400.
_HTTP_LOG = logging.getLogger(f"{__name__}.http")
_HTTP_LOG.addFilter(_own_faults)

# Image files are compressed already; what a compressed body grows to would be one limit more.
RUNNER: dict[str, Any] = {"auto_decompress": False, "access_log": None, "logger": _HTTP_LOG}


class Service:
    """One model behind HTTP.

    Each prediction runs on one thread of a pool as large as the machine has cores, so that several
    are made side by side; the event loop does nothing but read and write.

    Args:
        model: an .onnx file that the export stage made. Its content is kept in memory: the page
            gets the model that answers here, whatever becomes of the file.
        provider: see `tinygrow.deploy.sessions.open_session`.
        limits: of requests.
        page: folder of the built page.

    Raises:
        TinygrowError: the model cannot be opened, or takes no image files.
    """

    def __init__(
        self,
        model: Path,
        provider: str = "auto",
        *,
        limits: Limits | None = None,
        page: Path = FOLDER,
    ) -> None:
        self.limits = limits or Limits()
        self.predictor = Predictor(model, provider, threads=1)
        shape = self.predictor.contract.shape
        if shape[0] not in (1, 3) or shape[1] != shape[2]:
            raise TinygrowError(
                f"{model} takes images of shape {list(shape)}, which no image file fits; serve a"
                " model of square grey or colour images"
            )
        self._content = model.read_bytes()
        self._page = page_files(page)
        facts = {
            "model": self.predictor.contract.model,
            "precision": self.predictor.precision or "",
            "provider": self.predictor.provider,
        }
        self.metrics = Metrics(facts, self.limits.requests)
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "predict")

    @property
    def has_page(self) -> bool:
        """Whether the page was built before the server started."""
        return bool(self._page)

    def application(self) -> web.Application:
        """Return the application, for one event loop."""
        application = web.Application(middlewares=[self._answer_errors])
        application.router.add_post("/predict", self._predict)
        application.router.add_get("/health", self._health)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/contract.json", self._contract)
        application.router.add_get("/model.onnx", self._model)
        application.router.add_get("/", self._index)
        application.router.add_get("/page/{name}", self._file)
        application.on_response_prepare.append(_add_headers)
        application.on_cleanup.append(self._stop)
        return application

    def contract(self) -> dict[str, Any]:
        """Return what a client must know to use the model by itself."""
        contract = self.predictor.contract
        return {
            "model": contract.model,
            "precision": self.predictor.precision,
            "classes": list(contract.classes),
            "input": {
                "name": "images",
                "layout": "NCHW",
                "dtype": "uint8",
                "shape": list(contract.shape),
                "channels": contract.mode,
            },
            "output": "logits",
            "sha256": hashlib.sha256(self._content).hexdigest(),
            "limits": {"bytes": self.limits.bytes, "pixels": self.limits.pixels},
        }

    async def _predict(self, request: web.Request) -> web.Response:
        start = time.monotonic()
        try:
            response = await self._admitted(request)
        except Refused as refusal:
            response = _refusal(refusal.status, refusal.reason)
        except Exception:
            self.metrics.answered(500, 0.0)
            raise
        self.metrics.answered(response.status, time.monotonic() - start)
        return response

    async def _admitted(self, request: web.Request) -> web.Response:
        if self.metrics.in_flight >= self.limits.requests:
            response = _refusal(
                503, f"the server works on {self.limits.requests} images already; try again"
            )
            response.headers["Retry-After"] = "1"
            return response
        self.metrics.in_flight += 1
        try:
            top = _top(request.query)
            content = await self._body(request)
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._answer, content, top
            )
        finally:
            self.metrics.in_flight -= 1
        return web.json_response(
            {
                "label": found.label,
                "probability": found.probability,
                "top": [{"label": label, "probability": share} for label, share in found.top],
                "model": self.predictor.contract.model,
                "precision": self.predictor.precision,
            }
        )

    async def _body(self, request: web.Request) -> bytes:
        if request.content_type.startswith("multipart/"):
            raise Refused(
                415,
                "the body is a form; send the image file itself, as in"
                " curl --data-binary @photo.png",
            )
        if encoding := request.headers.get("Content-Encoding"):
            raise Refused(
                415, f"Content-Encoding is {encoding[:50]!r}; send the image file as it is"
            )
        if (request.content_length or 0) > self.limits.bytes:
            raise self._too_long(f"{request.content_length:,}")
        content = bytearray()
        try:
            async with asyncio.timeout(self.limits.seconds):
                async for chunk in request.content.iter_any():
                    content += chunk
                    if len(content) > self.limits.bytes:
                        raise self._too_long("more")
        except TimeoutError:
            raise Refused(
                408, f"the image did not arrive within {self.limits.seconds:g} s; send it again"
            ) from None
        except (web.RequestPayloadError, ConnectionError) as error:
            raise Refused(400, f"the body cannot be read ({error}); send it again") from None
        return bytes(content)

    def _too_long(self, length: str) -> Refused:
        return Refused(
            413,
            f"the image file has {length} bytes, the limit is {self.limits.bytes:,}; scale it down",
        )

    def _answer(self, content: bytes, top: int) -> Prediction:
        """Decode and classify; runs on a thread of the pool."""
        check_pixels(content, self.limits.pixels)
        try:
            image = self.predictor.prepare(content)
        except TinygrowError as error:
            raise Refused(422, f"the {error}") from error
        return self.predictor.predict(image, top=top)[0]

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "status": "ok",
                "model": self.predictor.contract.model,
                "precision": self.predictor.precision,
                "provider": self.predictor.provider,
            }
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self.metrics.text().encode(), headers={"Content-Type": CONTENT_TYPE}
        )

    async def _contract(self, _: web.Request) -> web.Response:
        return web.json_response(self.contract(), headers={"Cache-Control": "no-cache"})

    async def _model(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._content,
            content_type="application/octet-stream",
            headers={"Cache-Control": "no-cache"},
        )

    async def _index(self, request: web.Request) -> web.StreamResponse:
        if not self._page:
            return web.Response(status=404, text=REMEDY)
        return self._send("index.html")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in self._page:
            raise web.HTTPNotFound
        return self._send(name)

    def _send(self, name: str) -> web.FileResponse:
        path = self._page[name]
        kind = CONTENT_TYPES[path.suffix]
        return web.FileResponse(path, headers={"Content-Type": kind, "Cache-Control": "no-cache"})

    async def _stop(self, _: web.Application) -> None:
        self._threads.shutdown(cancel_futures=True)

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Answer every error as `/predict` does, with one line in JSON."""
        try:
            response: web.StreamResponse = await handler(request)
            return response
        except web.HTTPException as error:
            if error.status < 400:
                raise
            answer = _refusal(error.status, f"{request.method} {request.path}: {error.reason}")
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
            return answer
        except Exception:
            # The client learns that it is not at fault, the operator everything.
            _LOG.exception("%s %s failed", request.method, request.path)
            return _refusal(500, "the server failed on this request; its log says why")


def _top(query: Mapping[str, str]) -> int:
    text = query.get("top", str(_TOP))
    if not (text.isascii() and text.isdigit()) or int(text[:9]) < 1:
        raise Refused(400, f"top is {text[:50]!r}; it must be a whole number from 1")
    return int(text[:9])


def _refusal(status: int, reason: str) -> web.Response:
    return web.json_response({"error": " ".join(reason.split())}, status=status)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
