"""What there is on this machine, what really works of it, and what to fix."""

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

OLDEST_PYTHON = (3, 11)
GIGABYTES_NEEDED = 2.0
# Distribution -> module; what the pipeline imports or calls.
PACKAGES = {
    "click": "click",
    "numpy": "numpy",
    "pillow": "PIL",
    "ruamel.yaml": "ruamel.yaml",
    "safetensors": "safetensors",
    "scikit-learn": "sklearn",
    "torch": "torch",
    "torchvision": "torchvision",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxruntime": "onnxruntime",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "tqdm": "tqdm",
    "dvc": "dvc",
}
# Either wheel brings the module `onnxruntime`.
_WHEELS = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        mark: `ok`; `note` (works, could be better); `FIX` (the pipeline needs it).
        name: what was looked at.
        detail: what was found, and what to do.
    """

    mark: Literal["ok", "note", "FIX"]
    name: str
    detail: str


def examine() -> Iterator[Finding]:
    """Look at everything; what is missing is a finding, never an exception."""
    yield _python()
    for distribution, module in PACKAGES.items():
        yield _package(distribution, module)
    yield from _runtime_wheels()
    yield from _torch_devices()
    yield from _providers()
    yield _program("git", "DVC needs it; install git")
    yield _program("dvc", "run `make setup`, then `source .venv/bin/activate`")
    yield _disk()
    yield _cache()


def version_of(distribution: str) -> str:
    """Return the installed version, or an empty string."""
    for name in _WHEELS.get(distribution, (distribution,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _python() -> Finding:
    detail = f"{platform.python_version()} ({sys.executable}) on {platform.platform()}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("FIX", "python", f"{detail}; install 3.11 or newer and run `make setup`")
    return Finding("ok", "python", detail)


def _package(distribution: str, module: str) -> Finding:
    version = version_of(distribution)
    try:
        importlib.import_module(module)
    except Exception as error:
        # A damaged package raises whatever it likes; each is the same finding.
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        return Finding("FIX", distribution, f"{problem}; run `make setup`")
    return Finding("ok", distribution, version or "present, version unknown")


def _runtime_wheels() -> Iterator[Finding]:
    present = []
    for name in _WHEELS["onnxruntime"]:
        try:
            present.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if len(present) > 1:
        yield Finding(
            "FIX",
            "onnxruntime wheels",
            f"{' and '.join(present)} overwrite each other; delete .venv and run `make setup`",
        )


def _torch_devices() -> Iterator[Finding]:
    try:
        import torch

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        yield Finding("ok", "cpu", f"{cores} cores, {torch.get_num_threads()} threads of PyTorch")
        if not torch.cuda.is_available():
            yield Finding("note", "cuda (torch)", "no GPU that PyTorch can use; training is slow")
            return
        for index in range(torch.cuda.device_count()):
            _, total = torch.cuda.mem_get_info(index)
            torch.ones(1, device=f"cuda:{index}").add_(1).item()
            yield Finding(
                "ok",
                f"cuda:{index} (torch)",
                f"{torch.cuda.get_device_name(index)}, {total / 2**30:.0f} GiB",
            )
    except Exception as error:
        problem = " ".join(str(error).split())[:200]
        yield Finding("FIX", "cuda (torch)", f"{problem}; mend the driver or CUDA_VISIBLE_DEVICES")


def _providers() -> Iterator[Finding]:
    try:
        from tinygrow.deploy.sessions import PROVIDERS, provider_problem
    except Exception as error:
        yield Finding("FIX", "providers", f"cannot be tried: {error}; run `make setup`")
        return
    for name in PROVIDERS:
        problem = provider_problem(name)
        mark: Literal["ok", "note", "FIX"] = "note" if problem else "ok"
        if problem and name == "cpu":
            mark = "FIX"
        yield Finding(mark, f"{name} (onnxruntime)", problem or "ran a tiny model")


def _program(name: str, remedy: str) -> Finding:
    found = shutil.which(name)
    return (
        Finding("ok", f"{name} (program)", found)
        if found
        else Finding("FIX", f"{name} (program)", f"not found; {remedy}")
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    detail = f"{free:.1f} GB free in {Path.cwd()}"
    if free < GIGABYTES_NEEDED:
        return Finding("FIX", "disk", f"{detail}; free at least {GIGABYTES_NEEDED:g} GB")
    return Finding("ok", "disk", detail)


def _cache() -> Finding:
    name = "cache of downloads"
    try:
        from tinygrow.data.cache import VARIABLE, cache_folder

        folder = cache_folder()
        # The first download makes what is not there yet of the way to it.
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not (there.is_dir() and os.access(there, os.W_OK)):
            raise PermissionError(f"{folder} cannot be written; set {VARIABLE} to another folder")
        free = shutil.disk_usage(there).free / 1e9
    except Exception as error:
        return Finding("note", name, " ".join(str(error).split()))
    return Finding("ok", name, f"{free:.1f} GB free for {folder}")
