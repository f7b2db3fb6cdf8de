"""One check's outcome, and the verdict over all of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped"]
Number = float | int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one check found.

    Attributes:
        name: of the check.
        status: `skipped` means that it could not run; it counts for nothing, and says so.
        numbers: what was measured, beside its limits.
        reason: why it failed or was skipped; empty where it passed.
    """

    name: str
    status: Status
    numbers: Mapping[str, Number] = field(default_factory=dict)
    reason: str = ""

    def line(self) -> str:
        """Return the outcome in one line."""
        numbers = ", ".join(f"{k} {_short(v)}" for k, v in self.numbers.items())
        parts = [self.reason, numbers] if self.reason else [numbers]
        return f"{self.name}: {self.status.upper()} {'; '.join(p for p in parts if p)}".rstrip()


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks of one file."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed and at least one passed."""
        return not self.failures and any(c.status == "passed" for c in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(c for c in self.checks if c.status == "failed")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: the verdict, then each check by its name."""
        counts = {s: sum(c.status == s for c in self.checks) for s in ("failed", "skipped")}
        checks = {}
        for check in self.checks:
            entry = asdict(check)
            entry["status"] = "SKIPPED" if check.status == "skipped" else check.status
            checks[entry.pop("name")] = entry
        return {"passed": self.passed, **counts, "checks": checks}


def judge(name: str, problems: list[str], numbers: Mapping[str, Number] | None = None) -> Check:
    """Return a check that passed if there are no problems, and else names them all."""
    return Check(
        name=name,
        status="failed" if problems else "passed",
        numbers=numbers or {},
        reason="; ".join(problems),
    )


def skipped(name: str, reason: str) -> Check:
    """Return a check that could not run."""
    return Check(name=name, status="skipped", reason=reason)


def _short(value: Number) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
