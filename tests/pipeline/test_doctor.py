import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline import doctor
from pipeline.cli import cli


@pytest.fixture
def one_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the import of the large ones."""
    monkeypatch.setattr(doctor, "PACKAGES", {"click": "click"})


def by_name() -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine()}


def test_what_is_there_is_found(one_package: None) -> None:
    found = by_name()
    assert found["python"].mark == "ok"
    assert found["click"].mark == "ok"
    assert found["click"].detail[0].isdigit()
    assert found["cpu (onnxruntime)"].mark == "ok"
    assert "GB free" in found["disk"].detail


def test_what_is_missing_is_a_finding_with_a_remedy(
    one_package: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("click", "torch", "onnxruntime", "tinygrow.deploy.sessions"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("PATH", "")
    found = by_name()
    for name in ("click", "cuda (torch)", "providers", "git (program)", "dvc (program)"):
        assert found[name].mark == "FIX", name
        assert ";" in found[name].detail
    assert "run `make setup`" in found["click"].detail


def test_a_full_disk_is_told(one_package: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "GIGABYTES_NEEDED", 1e9)
    assert by_name()["disk"].mark == "FIX"


def test_where_downloads_are_kept_is_told(
    one_package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "not" / "yet" / "there"
    monkeypatch.setenv("TINYGROW_CACHE", str(folder))
    found = by_name()["cache of downloads"]
    assert found.mark == "ok"
    assert found.detail.endswith(f" GB free for {folder}")
    assert list(tmp_path.iterdir()) == [], "the doctor changes nothing"


def test_a_cache_that_cannot_be_written_is_told_with_a_remedy(
    one_package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYGROW_CACHE", str(tmp_path / "file" / "cache"))
    found = by_name()["cache of downloads"]
    assert found.mark == "note"
    assert found.detail.endswith("cannot be written; set TINYGROW_CACHE to another folder")


@pytest.mark.parametrize(("mark", "code"), [("ok", 0), ("note", 0), ("FIX", 1)])
def test_the_exit_code_tells_whether_something_is_to_fix(
    monkeypatch: pytest.MonkeyPatch, mark: str, code: int
) -> None:
    finding = doctor.Finding(mark, "thing", "is so; do this")  # type: ignore[arg-type]
    monkeypatch.setattr(doctor, "examine", lambda: iter([finding]))
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == code
    assert result.output.split()[:2] == [mark, "thing"]


def test_a_package_that_is_not_installed_has_no_version(tmp_path: Path) -> None:
    assert doctor.version_of("no-such-package-here") == ""
