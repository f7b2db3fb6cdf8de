from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tinygrow.observer import Observer
from tinygrow.products.gate import run
from tinygrow.products.gate.subject import Subject


class Listener(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_every_check_is_told(exported: Path, make_subject: Callable[..., Subject]) -> None:
    listener = Listener()
    verdict = run.run_gate(replace(make_subject(exported), observer=listener))
    assert listener.lines == [check.line() for check in verdict.checks]


def test_a_check_that_breaks_is_a_failed_check(
    exported: Path, make_subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(subject: Subject) -> None:
        raise ValueError("first line\nsecond line")

    monkeypatch.setitem(run.STATIC, "shapes", broken)
    verdict = run.run_gate(make_subject(exported))
    assert [(c.name, c.reason) for c in verdict.failures] == [("shapes", "ValueError: first line")]


def test_a_folding_that_changes_the_network_is_found(
    exported: Path, make_subject: Callable[..., Subject]
) -> None:
    class Doubled(nn.Module):
        """A network whose BatchNorm-free copy is another one."""

        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.network(x)

    subject = make_subject(exported)
    other = replace(subject, network=Doubled(subject.network).eval())
    other.__dict__["folded"] = subject.folded
    verdict = run.run_gate(other)
    assert [c.name for c in verdict.failures] == ["folding"]
