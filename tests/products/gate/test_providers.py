from collections.abc import Callable
from pathlib import Path

import pytest

from tinygrow.deploy.sessions import provider_problem
from tinygrow.products.gate import providers
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


@pytest.mark.gpu
@pytest.mark.skipif(bool(provider_problem("cuda")), reason="no CUDA provider that runs")
def test_cuda_agrees(exported: Path, make_subject: Make) -> None:
    check = providers.provider(make_subject(exported, require_gpu=True), "cuda")
    assert check.status == "passed", check.reason
    assert check.numbers["ran_on"] == "CUDAExecutionProvider"
