"""Tensors that stay on their device: really run on the CPU, and on CUDA where there is one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from tinygrow.deploy.binding import FixedBatch, device_of, run_bound
from tinygrow.deploy.sessions import GpuOptions, open_session, provider_problem
from tinygrow.errors import TinygrowError

Write = Callable[..., Path]


@pytest.fixture
def session(write_model: Write) -> ort.InferenceSession:
    return open_session(write_model(), "cpu")


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, 8, 8), np.uint8)


@pytest.mark.parametrize("count", [1, 5])
def test_logits_are_written_where_they_are_wanted(
    session: ort.InferenceSession, count: int
) -> None:
    images = torch.from_numpy(pixels(count))
    logits = torch.full((count, 3), torch.nan)
    run_bound(session, images, logits)
    (right,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_array_equal(logits.numpy(), right)


@pytest.mark.parametrize(
    ("images", "logits", "words"),
    [
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3), r"images are float32\[2, 3, 8, 8\]; give"),
        (torch.zeros(2, 3, 8, 9, dtype=torch.uint8), torch.zeros(2, 3), r"uint8\[2, 3, 8, 8\]"),
        (
            torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
            torch.zeros(3, 3),
            r"logits are float32\[3, 3",
        ),
        (
            torch.zeros(2, 8, 8, 3, dtype=torch.uint8).permute(0, 3, 1, 2),
            torch.zeros(2, 3),
            "not contiguous; give a contiguous",
        ),
        (
            torch.zeros(2, 3, 8, 8, dtype=torch.uint8, device="meta"),
            torch.zeros(2, 3),
            "images are on meta:0, the model runs on cpu:0",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    session: ort.InferenceSession, images: torch.Tensor, logits: torch.Tensor, words: str
) -> None:
    with pytest.raises(TinygrowError, match=words):
        run_bound(session, images, logits)


def test_a_fixed_batch_runs_again_and_again(session: ort.InferenceSession) -> None:
    fixed = FixedBatch(session, 4)
    first = fixed.run(pixels(4))
    kept = first.copy()
    other = 255 - pixels(4)
    second = fixed.run(other)
    np.testing.assert_array_equal(first, kept)  # a copy, not the buffer
    np.testing.assert_array_equal(second, session.run(None, {"images": other})[0])
    fixed.replay()
    with pytest.raises(TinygrowError, match=r"uint8\[3, 3, 8, 8\]; this batch is fixed to uint8"):
        fixed.run(pixels(3))


def test_device_is_what_the_session_says(session: ort.InferenceSession) -> None:
    class OnSecondGpu:
        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def get_provider_options(self) -> dict[str, dict[str, str]]:
            return {"CUDAExecutionProvider": {"device_id": "1"}}

    assert device_of(session) == ("cpu", 0)
    assert device_of(OnSecondGpu()) == ("cuda", 1)


@pytest.mark.gpu
@pytest.mark.skipif(bool(provider_problem("cuda")), reason="no CUDA provider that runs")
def test_on_cuda(write_model: Write) -> None:
    gpu = open_session(write_model(), "cuda", exact=True)
    images = torch.from_numpy(pixels(5)).cuda()
    logits = torch.full((5, 3), torch.nan, device="cuda")
    torch.cuda.synchronize()
    run_bound(gpu, images, logits)
    right = open_session(write_model(), "cpu").run(None, {"images": pixels(5)})[0]
    np.testing.assert_allclose(logits.cpu().numpy(), right, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(bool(provider_problem("cuda")), reason="no CUDA provider that runs")
def test_a_cuda_graph_replays(write_model: Write) -> None:
    options = GpuOptions(exact=True, cuda_graph=True)
    fixed = FixedBatch(open_session(write_model(), "cuda", gpu=options), 4)
    cpu = open_session(write_model(), "cpu")
    for images in (pixels(4), 255 - pixels(4), pixels(4)):
        right = cpu.run(None, {"images": images})[0]
        np.testing.assert_allclose(fixed.run(images), right, rtol=1e-4)
