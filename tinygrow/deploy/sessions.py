"""The one place that makes ONNX Runtime sessions, and that believes only what a session says.

`onnxruntime.get_available_providers()` lists what was compiled in, and a session asked for a GPU
falls back to the CPU with no more than a log line. So a provider counts as usable here once a tiny
model ran on it, and a session that was asked for one provider has it or is refused.
"""

import ctypes
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tinygrow.errors import TinygrowError

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}

# y = Conv(x, w), every tensor float32 (1, 1, 1, 1), opset 18: small, yet it needs cuDNN on a GPU.
_PROBE = bytes.fromhex(
    "08083a6b0a0f0a01780a01771201792204436f6e761201675a1b0a017812160a14080112100a0208010a0208010a02"
    "08010a0208015a1b0a017712160a14080112100a0208010a0208010a0208010a020801621b0a017912160a14080112"
    "100a0208010a0208010a0208010a02080142040a001012"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """What a session on a GPU does beyond its defaults; a session on the CPU ignores it.

    Attributes:
        device: index of the GPU.
        exact: full float32. TF32, the default, differs by about 1e-3.
        cuda_graph: record a run's kernels once and replay them. Every run must then have the same
            shapes and addresses, as `tinygrow.deploy.binding.FixedBatch` gives it.
        tensorrt_fp16: let TensorRT compute in float16 where it finds that faster.
        tensorrt_cache: folder in which TensorRT keeps its engines, which take minutes to build.
    """

    device: int = 0
    exact: bool = False
    cuda_graph: bool = False
    tensorrt_fp16: bool = False
    tensorrt_cache: Path | None = None

    def of(self, provider: str) -> dict[str, str]:
        """Return the options of ONNX Runtime for `cuda` or `tensorrt`; none for the CPU."""
        if provider == "cuda":
            options = {"device_id": str(self.device), "use_tf32": str(int(not self.exact))}
            return options | ({"enable_cuda_graph": "1"} if self.cuda_graph else {})
        if provider == "tensorrt":
            options = {
                "device_id": str(self.device),
                "trt_fp16_enable": str(int(self.tensorrt_fp16)),
            }
            if self.cuda_graph:
                options["trt_cuda_graph_enable"] = "1"
            if self.tensorrt_cache:
                options["trt_engine_cache_enable"] = "1"
                options["trt_engine_cache_path"] = str(self.tensorrt_cache)
            return options
        return {}


def open_session(
    model: Path | bytes,
    provider: str = "auto",
    *,
    exact: bool = False,
    threads: int = 0,
    strict: bool | None = None,
    gpu: GpuOptions | None = None,
) -> ort.InferenceSession:
    """Return a session that runs on the provider asked for.

    Args:
        model: an .onnx file or its content.
        provider: `auto` (CUDA where it really runs, else the CPU), `cpu`, `cuda` or `tensorrt`.
        exact: full float32 on CUDA; the same as in `gpu`.
        threads: of the CPU for one operator; 0: as many as there are cores.
        strict: have the provider whole, without a node left to the CPU, or fail; for `auto`, fail
            where a GPU is here and cannot be used. Else a warning tells of the CPU, which runs the
            model. Not given: strict where the provider is named outright.
        gpu: further options.

    Raises:
        TinygrowError: the model is missing or damaged, the provider does not run it, or `threads`
            is negative.
    """
    options = gpu or GpuOptions()
    options = replace(options, exact=options.exact or exact)
    if provider not in (*PROVIDERS, "auto"):
        raise TinygrowError(
            f"provider is {provider!r}; it must be one of auto, {', '.join(PROVIDERS)}"
        )
    if threads < 0:
        raise TinygrowError(f"threads is {threads}; it must be 0 (as many as cores) or more")
    if isinstance(model, Path) and not model.is_file():
        raise TinygrowError(f"{model} does not exist; run the export stage or name another file")
    if provider == "auto":
        return _open_best(model, options, threads, strict=bool(strict))
    problem = provider_problem(provider)
    if problem and strict is not False:
        raise TinygrowError(f"provider {provider!r} does not run here: {problem}")
    if problem:
        warnings.warn(
            f"provider {provider!r} does not run here, the model runs on the CPU: {problem}",
            RuntimeWarning,
            stacklevel=2,
        )
        provider = "cpu"
    return _open(model, provider, options, threads)


def provider_of(session: ort.InferenceSession) -> str:
    """Return the short name of the provider that a session says it runs on."""
    first = session.get_providers()[0]
    return next((name for name, full in PROVIDERS.items() if full == first), first)


def usable_providers() -> tuple[str, ...]:
    """Return the providers on which a tiny model really ran, fastest first."""
    return tuple(name for name in PROVIDERS if not provider_problem(name))


@cache
def provider_problem(provider: str) -> str:
    """Return why a provider does not run on this machine and what to do, or an empty string.

    Args:
        provider: a key of `PROVIDERS`.
    """
    if PROVIDERS[provider] not in ort.get_available_providers():
        return (
            f"this build of ONNX Runtime {ort.__version__} lacks it; install"
            " onnxruntime-gpu[cuda,cudnn] (Linux x86-64)"
        )
    if provider != "cpu":
        problem = _driver_problem() or (_tensorrt_problem() if provider == "tensorrt" else "")
        if problem:
            return problem
    try:
        session = _open(_PROBE, provider, GpuOptions(), threads=1)
        one = np.ones((1, 1, 1, 1), np.float32)
        session.run(None, {"x": one, "w": one})
    except TinygrowError as error:
        return str(error)
    except Exception as error:
        # The runtime's exceptions share no base class; whatever it raises, the provider is out.
        return f"a tiny model failed on it ({first_line(error)}); check the driver and CUDA"
    return ""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _open_best(
    model: Path | bytes, gpu: GpuOptions, threads: int, *, strict: bool
) -> ort.InferenceSession:
    problem = provider_problem("cuda")
    if not problem:
        return _open(model, "cuda", gpu, threads)
    if not _driver_problem() and (strict or PROVIDERS["cuda"] in ort.get_available_providers()):
        if strict:
            raise TinygrowError(f"a GPU is here, but cannot run the model: {problem}")
        warnings.warn(
            f"a GPU is here, but the model runs on the CPU: {problem}", RuntimeWarning, stacklevel=3
        )
    return _open(model, "cpu", gpu, threads)


def _open(
    model: Path | bytes, provider: str, gpu: GpuOptions, threads: int
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3 if provider == "cpu" else 4
    options.intra_op_num_threads = threads
    if provider != "cpu":
        _preload()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    wanted = PROVIDERS[provider]
    try:
        with _quiet(provider != "cpu"):
            session = ort.InferenceSession(
                model, options, providers=[(wanted, gpu.of(provider))], enable_fallback=0
            )
    except Exception as error:
        # The runtime's exceptions share no base class.
        name = model if isinstance(model, Path) else "the model"
        if isinstance(model, Path) and model.suffix.lower() != ".onnx" and _unparsed(error):
            raise TinygrowError(
                f"ONNX Runtime cannot open {name}: it is not an ONNX file; name an .onnx file with"
                " --model"
            ) from error
        raise TinygrowError(
            f"ONNX Runtime cannot open {name} on {provider} ({first_line(error)});"
            " export the model again or choose another provider"
        ) from error
    if session.get_providers()[0] != wanted:
        raise TinygrowError(
            f"ONNX Runtime was asked for {wanted} and took {session.get_providers()[0]}; check"
            " that its CUDA version is the one it was built for (python -m pipeline doctor)"
        )
    return session


def _unparsed(error: Exception) -> bool:
    """Say whether the runtime found no model at all in a file."""
    return type(error).__name__ == "InvalidProtobuf" or "No graph was found" in str(error)


@cache
def _preload() -> None:
    # PyPI's torch brings no curand, so importing torch first is not enough. A build for the CPU
    # alone has nothing to load, and an old one no such function.
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(sys.stderr):
            ort.preload_dlls()


@contextmanager
def _quiet(active: bool) -> Iterator[None]:
    """Silence the runtime's own log; a failing provider writes there what the error says too."""
    if active:
        ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        if active:
            ort.set_default_logger_severity(2)


@cache
def _driver_problem() -> str:
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return f"no NVIDIA driver ({library} is not found); install it where there is a GPU"
    status = driver.cuInit(0)
    count = ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        return (
            f"the NVIDIA driver shows no GPU (status {status}, {count.value} devices); check"
            " nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
    return ""


def _tensorrt_problem() -> str:
    library = "nvinfer_10.dll" if sys.platform == "win32" else "libnvinfer.so.10"
    try:
        ctypes.CDLL(library)
    except OSError:
        return f"TensorRT is not installed ({library} is not found); install it to use it"
    return ""
