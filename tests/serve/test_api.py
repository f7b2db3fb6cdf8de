import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from tests.deploy.conftest import contract_of, make_model
from tests.serve.files import png
from tinygrow.deploy.predictor import Prediction, Predictor
from tinygrow.errors import TinygrowError
from tinygrow.serve.app import RUNNER, Service
from tinygrow.serve.limits import Limits
from tinygrow.serve.page import page_files

Client = TestClient[Any, Any]
Scene = Callable[[Client], Awaitable[None]]
GREY = Image.new("L", (9, 9), 99)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "fp32.onnx"  # a name says nothing: the file knows what it is
    path.write_bytes(make_model(contract_of((3, 8, 8)), precision="int8").SerializeToString())
    return path


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[Client]:
    server = TestServer(service.application())
    await server.start_server(**RUNNER)
    async with TestClient(server) as client:
        yield client


def play(service: Service, scene: Scene) -> None:
    """Run a scene against a server."""

    async def whole() -> None:
        async with client_of(service) as client:
            await scene(client)

    asyncio.run(whole())


async def reason(response: ClientResponse) -> str:
    """Return why a request was refused; every refusal is one line."""
    told = await response.json()
    assert list(told) == ["error"]
    assert len(told["error"].splitlines()) == 1
    return str(told["error"])


def test_an_image_gets_the_predictors_answer(model: Path) -> None:
    (right,) = Predictor(model, "cpu").predict(png(GREY))

    async def scene(client: Client) -> None:
        for options in ({}, {"headers": {"Content-Type": "image/png"}}):
            response = await client.post("/predict", data=png(GREY), **options)
            assert response.status == 200
            assert await response.json() == {
                "label": "dark",
                "probability": right.probability,
                "top": [{"label": label, "probability": share} for label, share in right.top],
                "model": "brightness",
                "precision": "int8",
            }
        short = await client.post("/predict?top=1", data=png(GREY))
        assert [entry["label"] for entry in (await short.json())["top"]] == ["dark"]

    play(Service(model, "cpu"), scene)


@pytest.mark.parametrize(
    ("content", "path", "status", "words"),
    [
        (b"", "/predict", 422, "the image is empty (0 bytes)"),
        (b"no image", "/predict", 422, "the image is not an image that can be read"),
        (png(GREY)[:-20], "/predict", 422, "the image is damaged"),
        (bytes(3001), "/predict", 413, "the image file has 3,001 bytes, the limit is 3,000"),
        (png(Image.new("1", (50, 41))), "/predict", 413, "50 x 41 pixels, more than the limit"),
        # Pillow itself warns or raises at these.
        (png(Image.new("1", (10000, 9500))), "/predict", 413, "pixels"),
        (png(GREY), "/predict?top=0", 400, "top is '0'; it must be a whole number from 1"),
        (png(GREY), "/predict?top=-1", 400, "top is '-1'"),
        (png(GREY), "/predict?top=²", 400, "top is '²'"),
        (png(GREY), "/nothing", 404, "POST /nothing: Not Found"),
        (png(GREY), "/health", 405, "POST /health: Method Not Allowed"),
    ],
)
def test_what_is_refused_and_why(
    model: Path, content: bytes, path: str, status: int, words: str
) -> None:
    limits = Limits(bytes=max(3000, len(content) - (b"PNG" not in content)), pixels=2000)

    async def scene(client: Client) -> None:
        response = await client.post(path, data=content)
        assert response.status == status
        assert words in await reason(response)
        assert (await client.post("/predict", data=png(GREY))).status == 200

    play(Service(model, "cpu", limits=limits), scene)


def test_a_body_of_unknown_length_is_bounded_while_it_arrives(model: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)

    async def scene(client: Client) -> None:
        response = await client.post("/predict", data=endless())
        assert response.status == 413
        assert "has more bytes, the limit is 5,000" in await reason(response)

    play(Service(model, "cpu", limits=Limits(bytes=5000)), scene)


def test_a_compressed_body_is_never_unpacked(model: Path) -> None:
    async def scene(client: Client) -> None:
        headers = {"Content-Encoding": "gzip"}
        for content in (gzip.compress(png(GREY)), gzip.compress(bytes(10**7)), b"no gzip"):
            response = await client.post("/predict", data=content, headers=headers)
            assert response.status == 415
            assert "Content-Encoding is 'gzip'" in await reason(response)

    play(Service(model, "cpu"), scene)


def test_a_form_is_told_how_to_send_an_image(model: Path) -> None:
    async def scene(client: Client) -> None:
        boundary = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await client.post("/predict", data=b"--x--", headers=boundary)
        assert response.status == 415
        assert "curl --data-binary" in await reason(response)

    play(Service(model, "cpu"), scene)


def test_an_image_that_does_not_arrive(model: Path) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield png(GREY)[:20]
        await asyncio.sleep(60)

    async def scene(client: Client) -> None:
        response = await client.post("/predict", data=stalled())
        assert response.status == 408
        assert "did not arrive within 0.05 s" in await reason(response)

    play(Service(model, "cpu", limits=Limits(seconds=0.05)), scene)


def test_more_requests_than_there_is_room_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, busy = threading.Event(), threading.Semaphore(0)
    real = Predictor.predict

    def slow(self: Predictor, *args: Any, **options: Any) -> list[Prediction]:
        busy.release()
        assert go_on.wait(60)
        return real(self, *args, **options)

    monkeypatch.setattr(Predictor, "predict", slow)
    service = Service(model, "cpu", limits=Limits(requests=1))

    async def scene(client: Client) -> None:
        first = asyncio.create_task(client.post("/predict", data=png(GREY)))
        assert await asyncio.to_thread(busy.acquire, timeout=60)
        refused = await client.post("/predict", data=png(GREY))
        assert refused.status == 503
        assert refused.headers["Retry-After"] == "1"
        assert "works on 1 images already" in await reason(refused)
        assert (await client.get("/health")).status == 200
        assert "tinygrow_predict_in_flight 1\n" in await (await client.get("/metrics")).text()
        go_on.set()
        assert (await first).status == 200
        assert (await client.post("/predict", data=png(GREY))).status == 200

    try:
        play(service, scene)
    finally:
        go_on.set()


def test_many_at_once_get_the_right_answers(model: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, 40)
    files = [png(Image.new("L", (20, 20), int(value))) for value in values]
    right = [found.label for found in Predictor(model, "cpu").predict(files)]
    assert len(set(right)) == 3

    async def scene(client: Client) -> None:
        responses = await asyncio.gather(*(client.post("/predict", data=f) for f in files))
        assert [(await response.json())["label"] for response in responses] == right

    play(Service(model, "cpu", limits=Limits(requests=40)), scene)


def test_health_and_metrics(model: Path) -> None:
    async def scene(client: Client) -> None:
        health = await client.get("/health")
        assert await health.json() == {
            "status": "ok",
            "model": "brightness",
            "precision": "int8",
            "provider": "cpu",
        }
        for content in (png(GREY), png(GREY), b"no image"):
            await client.post("/predict", data=content)
        response = await client.get("/metrics")
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = (await response.text()).splitlines()
        for line in (
            'tinygrow_model_info{model="brightness",precision="int8",provider="cpu"} 1',
            'tinygrow_predict_requests_total{code="200"} 2',
            'tinygrow_predict_requests_total{code="422"} 1',
            "tinygrow_predict_in_flight 0",
            "tinygrow_predict_capacity 16",
            'tinygrow_predict_seconds_bucket{le="+Inf"} 2',
            "tinygrow_predict_seconds_count 2",
        ):
            assert line in lines
        counts = [int(x.split()[-1]) for x in lines if x.startswith("tinygrow_predict_seconds_b")]
        assert counts == sorted(counts)

    play(Service(model, "cpu"), scene)


def test_a_bug_is_500_without_its_details(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the secret")

    monkeypatch.setattr(Predictor, "predict", fail)

    async def scene(client: Client) -> None:
        response = await client.post("/predict", data=png(GREY))
        assert response.status == 500
        assert "secret" not in await reason(response)
        metrics = await (await client.get("/metrics")).text()
        assert 'requests_total{code="500"} 1\n' in metrics
        assert "tinygrow_predict_in_flight 0\n" in metrics

    play(Service(model, "cpu"), scene)
    assert "the secret" in caplog.text


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    ],
)
def test_what_is_no_http_leaves_no_traceback(
    model: Path, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(client: Client) -> None:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(sent)
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 60)
        writer.close()
        assert (await client.post("/predict", data=png(GREY))).status == 200

    play(Service(model, "cpu"), scene)
    assert not [record for record in caplog.records if record.exc_info]


def test_the_page_and_its_model(model: Path, tmp_path: Path) -> None:
    built = tmp_path / "page"
    built.mkdir()
    for name in ("index.html", "page.js", "ort.wasm", "notes.txt"):
        (built / name).write_text(name)
    (tmp_path / "secret.js").write_text("secret")
    served = model.read_bytes()
    service = Service(model, "cpu", page=built)
    model.write_bytes(b"another model")

    async def scene(client: Client) -> None:
        index = await client.get("/")
        assert (await index.text(), index.content_type) == ("index.html", "text/html")
        assert index.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert index.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert "http" not in index.headers["Content-Security-Policy"]
        assert "default-src 'none'" in index.headers["Content-Security-Policy"]
        kinds = {"page.js": "text/javascript", "ort.wasm": "application/wasm"}
        for name, kind in kinds.items():
            assert (await client.get(f"/page/{name}")).content_type == kind
        for name in ("notes.txt", "..%2fsecret.js", "%2e%2e/secret.js", "gone.js"):
            assert (await client.get(f"/page/{name}")).status == 404
        assert await (await client.get("/model.onnx")).read() == served
        contract = await (await client.get("/contract.json")).json()
        assert contract["classes"] == ["dark", "grey", "bright"]
        assert contract["input"]["shape"] == [3, 8, 8]
        assert contract["limits"] == {"bytes": 10 * 2**20, "pixels": 25_000_000}

    play(service, scene)


def test_without_the_page_the_way_to_it_is_told(model: Path, tmp_path: Path) -> None:
    assert page_files(tmp_path / "nowhere") == {}

    async def scene(client: Client) -> None:
        index = await client.get("/")
        assert index.status == 404
        text = await index.text()
        assert "make web" in text
        assert len(text.splitlines()) == 1
        assert (await client.post("/predict", data=png(GREY))).status == 200

    play(Service(model, "cpu", page=tmp_path / "nowhere"), scene)


def test_a_model_that_no_image_file_fits(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(make_model(contract_of((3, 8, 6))).SerializeToString())
    with pytest.raises(TinygrowError, match=r"shape \[3, 8, 6\], which no image file fits"):
        Service(path, "cpu")
