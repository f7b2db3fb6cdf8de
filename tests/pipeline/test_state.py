import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import params, paths, state
from pipeline.stages import grow
from tests.pipeline.tiny import RESNET, put, read_demo, write_params, write_tiny_params
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.state.folder import StateFolder
from tinygrow.state.stop import Stop, StopRequest


class Lines(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def belonging(stage: str = "grow", device: str = "cpu") -> dict[str, Any]:
    return state.belonging(stage, params.read(), "demo", device)


def change(place: str, value: Any) -> None:
    tree = read_demo()
    put(tree, place, value)
    write_params(Path(), tree)


def test_the_same_work_has_the_same_name(folder: Path) -> None:
    before = state.name("grow", "demo", belonging())
    write_params(folder, read_demo())
    assert state.name("grow", "demo", belonging()) == before
    assert json.loads(json.dumps(belonging())) == belonging()


@pytest.mark.parametrize(
    ("place", "value", "stages"),
    [
        ("models.demo.growth.training.learning_rate", 0.3, {"grow"}),
        ("models.demo.growth.snapshots", True, {"grow"}),
        ("models.demo.architecture.base_width", 16, {"grow"}),
        ("models.demo.finetune.epochs", 99, {"finetune"}),
        ("models.demo.seed", 5, {"grow", "finetune"}),
        ("models.demo.export.opset", 21, set()),
        ("models.demo.device", "cpu", set()),  # the kind of device that is used counts
        ("data.digits.size", 32, set()),  # what is made of it counts
    ],
)
def test_a_setting_makes_other_work_of_the_stages_that_read_it(
    folder: Path, place: str, value: Any, stages: set[str]
) -> None:
    before = {stage: belonging(stage) for stage in state.READ}
    change(place, value)
    for stage in state.READ:
        told = state.differences(before[stage], belonging(stage))
        assert told == ([place.removeprefix("models.demo.")] if stage in stages else [])


def test_an_input_makes_other_work(folder: Path) -> None:
    grow_before, finetune_before = belonging("grow"), belonging("finetune")
    paths.grown("demo").write_bytes(b"other")
    assert belonging("grow") == grow_before
    assert state.differences(finetune_before, belonging("finetune")) == [str(paths.grown("demo"))]


def test_code_and_device_make_other_work(folder: Path) -> None:
    now = belonging()
    assert "tinygrow/growth/extend.py" in now["code"]
    assert "pipeline/cli.py" not in now["code"]
    old = json.loads(json.dumps(now))
    old["code"]["tinygrow/growth/extend.py"] = "another digest"
    old["device"] = "cuda"
    old["processes"] = 2
    assert state.differences(old, now) == ["tinygrow/growth/extend.py", "device", "processes"]


def test_experiments_in_a_temporary_copy_share_the_repository_s_states(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert state.home() == Path(".state")
    parent = folder / "parent"
    parent.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(parent))
    assert state.home() == parent / ".state"


def test_why_an_older_state_is_not_used_is_told(folder: Path) -> None:
    old = belonging()
    with StateFolder(
        state.home() / state.name("grow", "demo", old),
        {"stage": "grow", "model": "demo", "belongs": old},
    ) as states:
        states.save({"progress": "extension 3 of 48"})
    change("models.demo.growth.training.learning_rate", 0.3)

    observer = Lines()
    with state.kept("grow", "demo", belonging(), observer=observer) as keeper:
        assert keeper.restore() is None
    (line,) = observer.lines
    assert (
        "extension 3 of 48" in line
        and "changed since then are growth.training.learning_rate" in line
    )

    observer = Lines()
    with state.kept("grow", "demo", old, observer=observer) as keeper:
        kept = keeper.restore()
    assert kept is not None and kept["progress"] == "extension 3 of 48"
    assert observer.lines[0].startswith("going on from extension 3 of 48")


class Halfway(Observer):
    """Asks to stop during the third extension's training or later."""

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("extension 3/"):
            self.request.ask("test", 130)


def test_the_code_of_a_network_of_ones_own_counts(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "net.py").write_text("from mine import parts\nfrom . import more\n")
    (folder / "mine" / "parts.py").write_text("WIDTH = 3\n")
    (folder / "mine" / "more.py").write_text("")
    change("models.demo.architecture", "mine.net:make")
    before = {stage: belonging(stage) for stage in state.READ}
    assert {"mine/net.py", "mine/parts.py", "mine/more.py"} <= set(before["grow"]["code"])

    (folder / "mine" / "parts.py").write_text("WIDTH = 4\n")

    for stage in state.READ:
        assert state.differences(before[stage], belonging(stage)) == ["mine/parts.py"]

    block = {"kind": "custom", "network": "json.tool:main", "start": 0.5, "arguments": {}}
    change("models.demo.architecture", block)  # installed: its file alone
    assert "json.tool" in belonging()["code"]
    block["network"] = "nowhere.at.all:f"
    change("models.demo.architecture", block)
    assert belonging()["code"].keys() == before["grow"]["code"].keys() - {
        f"mine/{name}.py" for name in ("net", "parts", "more")
    }


def test_a_stopped_stage_writes_no_output_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stages import download

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    write_tiny_params(tmp_path, RESNET, snapshots=True)
    download.run("digits", observer=Observer())
    request = StopRequest()
    observer = Halfway(request)
    with pytest.raises(Stop) as caught:
        grow.run("demo", observer=observer, stop=request)
    assert caught.value.saved is not None and caught.value.saved.startswith("extension 4 of 6")
    assert not Path("models").exists() and not Path("metrics").exists()

    (kept,) = state.home().iterdir()
    with StateFolder(kept, {}), pytest.raises(TinygrowError, match=r"works on .*already"):
        grow.run("demo", observer=Observer())

    observer = Lines()
    grow.run("demo", observer=observer)
    assert any(line.startswith("going on from extension 4 of 6") for line in observer.lines)
    assert not any(line.startswith("extension 3/") for line in observer.lines)
    assert len(list(paths.snapshots("demo").iterdir())) == 7


def test_results_that_nobody_took_over_are_written_again_without_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stages import download, finetune

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    write_tiny_params(tmp_path, RESNET, snapshots=True)
    download.run("digits", observer=Observer())
    for stage, made in ((grow, paths.grown("demo")), (finetune, paths.finetuned("demo"))):
        stage.run("demo", observer=Observer())
        first = made.read_bytes()
        snapshots = sorted(file.name for file in paths.snapshots("demo").iterdir())
        made.unlink()  # as DVC does, which recorded nothing
        observer = Lines()
        stage.run("demo", observer=observer)
        assert observer.lines[0].startswith("going on from the end")
        assert not any(line.startswith(("extension ", "epoch ")) for line in observer.lines)
        assert made.read_bytes() == first
        assert sorted(file.name for file in paths.snapshots("demo").iterdir()) == snapshots

    assert len(list(state.home().iterdir())) == 2
    state.drop("grow", "demo")
    (left,) = state.home().iterdir()
    assert left.name.startswith("finetune-demo-")


def test_only_finished_states_are_dropped(folder: Path) -> None:
    for progress in ("the end", "extension 3 of 48"):
        belongs = belonging() | {"device": progress}
        with StateFolder(
            state.home() / state.name("grow", "demo", belongs),
            {"stage": "grow", "model": "demo", "belongs": belongs},
        ) as states:
            states.save({"progress": progress})
    state.drop("finetune", "demo")
    state.drop("grow", "other")
    assert len(list(state.home().iterdir())) == 2
    state.drop("grow", "demo")
    (left,) = state.home().iterdir()
    assert state.about(left)["progress"] == "extension 3 of 48"
