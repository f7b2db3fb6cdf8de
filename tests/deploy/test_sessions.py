from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tinygrow.deploy import sessions
from tinygrow.errors import TinygrowError


class Fallen:
    """A session that was asked for something else and took the CPU."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    sessions.provider_problem.cache_clear()
    yield
    sessions.provider_problem.cache_clear()


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_driver_problem", lambda: "no NVIDIA driver; install it")


@pytest.fixture
def lying_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with driver and build for CUDA, whose sessions fall back to the CPU."""
    monkeypatch.setattr(sessions, "_driver_problem", lambda: "")
    monkeypatch.setattr(sessions, "_preload", lambda: None)
    monkeypatch.setattr(
        sessions.ort, "get_available_providers", lambda: list(sessions.PROVIDERS.values())
    )
    monkeypatch.setattr(sessions.ort, "InferenceSession", Fallen)


def test_the_probe_is_a_sound_model() -> None:
    model = onnx.load_model_from_string(sessions._PROBE)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv"]


def test_cpu_session_runs(write_model: Callable[..., Path]) -> None:
    path = write_model()
    for model in (path, path.read_bytes()):
        session = sessions.open_session(model, "cpu", threads=1)
        assert sessions.provider_of(session) == "cpu"
        images = np.full((2, 3, 8, 8), 60, np.uint8)
        (logits,) = session.run(None, {"images": images})
        np.testing.assert_allclose(logits, [[40, 0, -95]] * 2, rtol=1e-5)


def test_a_machine_without_gpu_is_silent(
    no_driver: None, write_model: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sessions.usable_providers() == ("cpu",)
    assert sessions.provider_of(sessions.open_session(write_model())) == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_named_outright_is_had_or_refused(
    provider: str,
    no_driver: None,
    write_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        sessions.ort, "get_available_providers", lambda: list(sessions.PROVIDERS.values())
    )
    with pytest.raises(TinygrowError, match=rf"'{provider}' does not run here: no NVIDIA driver"):
        sessions.open_session(write_model(), provider)


def test_a_build_without_the_provider(
    write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(TinygrowError, match=r"lacks it; install onnxruntime-gpu"):
        sessions.open_session(write_model(), "cuda")


def test_a_session_that_fell_back_is_found_out(
    lying_gpu: None, write_model: Callable[..., Path]
) -> None:
    words = r"was asked for CUDAExecutionProvider and took CPUExecutionProvider"
    assert words in sessions.provider_problem("cuda")
    with pytest.raises(TinygrowError, match=words):
        sessions.open_session(write_model(), "cuda")


def test_auto_says_that_a_gpu_lies_idle(lying_gpu: None, write_model: Callable[..., Path]) -> None:
    with pytest.warns(RuntimeWarning, match="a GPU is here, but the model runs on the CPU"):
        assert sessions.provider_of(sessions.open_session(write_model())) == "cpu"


def test_strict_auto_refuses_where_a_gpu_lies_idle(
    lying_gpu: None, write_model: Callable[..., Path]
) -> None:
    with pytest.raises(TinygrowError, match="a GPU is here, but cannot run the model: ONNX"):
        sessions.open_session(write_model(), strict=True)


def test_strict_auto_takes_the_cpu_where_there_is_no_gpu(
    no_driver: None, write_model: Callable[..., Path]
) -> None:
    session = sessions.open_session(write_model(), strict=True)
    assert sessions.provider_of(session) == "cpu"


def test_a_named_provider_may_be_let_go_with_a_warning(
    no_driver: None, write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sessions.ort, "get_available_providers", lambda: list(sessions.PROVIDERS.values())
    )
    with pytest.warns(RuntimeWarning, match=r"'cuda' .* runs on the CPU: no NVIDIA driver"):
        session = sessions.open_session(write_model(), "cuda", strict=False)
    assert sessions.provider_of(session) == "cpu"


@pytest.mark.parametrize(
    ("options", "provider", "right"),
    [
        ({}, "cpu", {}),
        ({}, "cuda", {"device_id": "0", "use_tf32": "1"}),
        (
            {"exact": True, "cuda_graph": True, "device": 2},
            "cuda",
            {"device_id": "2", "use_tf32": "0", "enable_cuda_graph": "1"},
        ),
        (
            {"tensorrt_fp16": True, "cuda_graph": True, "tensorrt_cache": Path("engines")},
            "tensorrt",
            {
                "device_id": "0",
                "trt_fp16_enable": "1",
                "trt_cuda_graph_enable": "1",
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": "engines",
            },
        ),
    ],
)
def test_options_reach_their_provider(
    options: dict[str, Any], provider: str, right: dict[str, str]
) -> None:
    assert sessions.GpuOptions(**options).of(provider) == right


def test_a_session_on_cuda_is_preloaded_whole_and_told_its_options(
    write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake of CUDA that keeps what it was asked for: no node may be left to the CPU."""
    asked: list[Any] = []

    class Cuda:
        def __init__(self, model: object, options: Any, *, providers: Any, **others: Any) -> None:
            entry = options.get_session_config_entry("session.disable_cpu_ep_fallback")
            asked.append((entry, providers, others))

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

    sessions._preload.cache_clear()
    monkeypatch.setattr(sessions.ort, "preload_dlls", lambda: asked.append("preloaded"))
    monkeypatch.setattr(sessions, "provider_problem", lambda name: "")
    monkeypatch.setattr(sessions.ort, "InferenceSession", Cuda)
    try:
        sessions.open_session(write_model(), "cuda", exact=True)
    finally:
        sessions._preload.cache_clear()
    options = {"device_id": "0", "use_tf32": "0"}
    right = ("1", [("CUDAExecutionProvider", options)], {"enable_fallback": 0})
    assert asked == ["preloaded", right]


def test_a_library_that_does_not_load_is_told(
    lying_gpu: None, write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("libcurand.so.10: cannot open shared object file")

    monkeypatch.setattr(sessions.ort, "InferenceSession", broken)
    with pytest.raises(TinygrowError, match=r"does not run here: .*libcurand.so.10: cannot open"):
        sessions.open_session(write_model(), "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(bool(sessions.provider_problem("cuda")), reason="no CUDA provider that runs")
def test_cuda_is_really_had(write_model: Callable[..., Path]) -> None:
    session = sessions.open_session(write_model(), "cuda", strict=True)
    assert sessions.provider_of(session) == "cuda"


def test_unknown_provider(write_model: Callable[..., Path]) -> None:
    with pytest.raises(TinygrowError, match=r"'gpu'; it must be one of auto, tensorrt, cuda, cpu"):
        sessions.open_session(write_model(), "gpu")


def test_negative_threads(write_model: Callable[..., Path]) -> None:
    with pytest.raises(TinygrowError, match=r"threads is -1; it must be 0"):
        sessions.open_session(write_model(), "cpu", threads=-1)


def test_missing_and_damaged_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(TinygrowError, match=r"model.onnx does not exist; run the export stage"):
        sessions.open_session(path)
    path.write_bytes(b"no model at all")
    with pytest.raises(TinygrowError, match=r"cannot open .*model.onnx on cpu \(.*\); export"):
        sessions.open_session(path, "cpu")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(TinygrowError) as caught:
        sessions.open_session(path, "cpu")
    words = "bad.png: it is not an ONNX file; name an .onnx file with --model"
    assert str(caught.value).endswith(words)


def test_a_model_may_have_any_name(write_model: Callable[..., Path]) -> None:
    path = write_model().rename(write_model().with_name("model.bin"))
    assert sessions.provider_of(sessions.open_session(path, "cpu")) == "cpu"


def test_first_line() -> None:
    assert sessions.first_line(ValueError("one\ntwo")) == "one"
    assert sessions.first_line(ValueError()) == "ValueError"
