from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tinygrow.deploy.sessions import provider_problem
from tinygrow.errors import TinygrowError
from tinygrow.products.gate import providers, run
from tinygrow.products.gate.run import run_gate
from tinygrow.products.gate.subject import Subject

Make = Callable[..., Subject]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        providers, "provider_problem", lambda name: "" if name == "cpu" else "no driver"
    )


def test_a_provider_that_is_not_here_is_skipped_aloud(
    no_gpu: None, exported: Path, make_subject: Make
) -> None:
    verdict = run_gate(make_subject(exported))
    assert verdict.passed
    checks = verdict.to_dict()["checks"]
    assert checks["provider_cpu"]["numbers"]["ran_on"] == "CPUExecutionProvider"
    for name in ("provider_cuda", "provider_tensorrt"):
        assert checks[name] == {"status": "SKIPPED", "numbers": {}, "reason": "no driver"}


def test_require_gpu_makes_a_skip_a_failure(
    no_gpu: None, exported: Path, make_subject: Make
) -> None:
    verdict = run_gate(make_subject(exported, require_gpu=True))
    assert [c.name for c in verdict.failures] == ["provider_cuda"]
    assert verdict.failures[0].reason == "does not run here: no driver"


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_cpu_run_never_passes_as_a_gpu_run(
    name: str, exported: Path, make_subject: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_subject(exported)
    monkeypatch.setattr(providers, "provider_problem", lambda name: "")
    monkeypatch.setattr(providers, "open_session", lambda *args, **kwargs: subject.session)
    check = providers.provider(subject, name)
    assert (check.status, check.reason) == ("failed", "the session ran on cpu")


@pytest.mark.parametrize(("precision", "status"), [("fp16", "failed"), ("int8", "skipped")])
def test_a_gpu_without_a_kernel_refuses_no_product_for_cpus(
    precision: str,
    status: str,
    request: pytest.FixtureRequest,
    make_subject: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = request.getfixturevalue({"fp16": "halved", "int8": "quantized"}[precision])
    subject = make_subject(path, precision)
    subject.torch_logits, subject.onnx_logits  # noqa: B018 - computed before sessions fail

    def refuse(*args: object, **kwargs: object) -> None:
        raise TinygrowError("no kernel for DequantizeLinear")

    monkeypatch.setattr(providers, "provider_problem", lambda name: "")
    monkeypatch.setattr(providers, "open_session", refuse)
    check = run._run("provider_cuda", partial(providers.provider, name="cuda"), subject)
    assert check.status == status and "no kernel for DequantizeLinear" in check.reason


@pytest.mark.gpu
@pytest.mark.skipif(bool(provider_problem("cuda")), reason="no CUDA provider that runs")
def test_cuda_agrees(exported: Path, make_subject: Make) -> None:
    check = providers.provider(make_subject(exported, require_gpu=True), "cuda")
    assert check.status == "passed", check.reason
    assert check.numbers["ran_on"] == "CUDAExecutionProvider"
