"""Models side by side, none made twice, under DVC itself; what a stage does is a line of shell."""

import fcntl
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import grid
from pipeline.closure import ROOT
from tests.pipeline.run_dvc import environment

pytest.importorskip("dvc")

STAGES = """
stages:
  download:
    foreach: ${data}
    do:
      cmd: mkdir -p data && echo ${key} > data/${key}.txt && echo ${key} >> ../journal
      deps: [../work.sh]  # DVC keeps no runs of stages without any
      outs: ['data/${key}.txt']
  report:
    foreach: ${models}
    do:
      cmd: sh ../work.sh ${key}
      deps: ['data/${item.data}.txt']
      params: ['models.${key}']
      outs: ['reports/${key}']
"""
WORK = """
echo "$1 begins" >> ../journal
cat inbox/parcel
case $1 in
  patient) if [ ! -e .state/patient ]; then touch .state/patient; exec sleep 100; fi ;;
  broken) if [ ! -e ../mended ]; then echo "no luck" >&2; exit 3; fi ;;
esac
mkdir -p "reports/$1"
echo "$1" > "reports/$1/index.html"
echo "$1 ends" >> ../journal
"""
MODELS = ("patient", "broken", "quick")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline folder `set` beside a journal of what stages did."""
    folder = tmp_path / "set"
    (folder / "inbox").mkdir(parents=True)
    (folder / "inbox" / "parcel").write_text("parcel")
    (folder / "dvc.yaml").write_text(STAGES)
    models = "".join(f"  {name}: {{data: images}}\n" for name in MODELS)
    (folder / "params.yaml").write_text(f"data:\n  images: {{}}\nmodels:\n{models}")
    (folder / ".dvc").mkdir()
    config = (ROOT / ".dvc" / "config").read_text().replace("autostage = true", "no_scm = true")
    (folder / ".dvc" / "config").write_text(config)
    (tmp_path / "work.sh").write_text(WORK)
    return folder


def journal(folder: Path) -> list[str]:
    path = folder.parent / "journal"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.glob(".set.*"))


def test_models_are_made_once_and_stopped_ones_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = folder / ".dvc" / "tmp" / "grid"
    notes.mkdir(parents=True)
    arguments = [str(folder), "--jobs", "3"]
    with (notes / "quick.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = subprocess.Popen(
            [sys.executable, "-m", "pipeline.grid", *arguments, "patient", "quick"],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        while "patient begins" not in journal(folder) and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        printed, _ = running.communicate(timeout=100)
    assert running.returncode == 130
    assert "quick: another run is making it" in printed and "patient: stopped" in printed
    assert journal(folder) == ["images", "patient begins"]
    assert beside(folder) == [".set.patient"]

    assert grid.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "patient: done" in printed and "quick: done" in printed
    assert "broken: FAILED" in printed and "no luck" in printed
    for name in ("patient", "quick"):
        assert (folder / "reports" / name / "index.html").read_text() == f"{name}\n"
    assert beside(folder) == [".set.broken"]
    assert (notes / "quick.log").read_text().count("parcel") == 1

    (folder.parent / "mended").touch()
    assert grid.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "patient: finished" in printed and "quick: finished" in printed
    assert "broken: done" in printed
    assert beside(folder) == []
    lines = journal(folder)
    assert {name: lines.count(f"{name} ends") for name in MODELS} == dict.fromkeys(MODELS, 1)
    assert {name: lines.count(f"{name} begins") for name in MODELS} == {
        "patient": 2,
        "broken": 2,
        "quick": 1,
    }
    assert lines.count("images") == 1


def test_what_cannot_be_made_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert grid.main([str(folder), "quack"]) == 1
    assert "'quack'" in capsys.readouterr().err
    assert grid.main([str(folder.parent)]) == 1
    assert "params.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        grid.main([str(folder), "--jobs", "0"])
    assert "--jobs is 0" in capsys.readouterr().err
    shutil.rmtree(folder / ".dvc")
    assert grid.main([str(folder)]) == 1
    assert "failed in set" in capsys.readouterr().err
