import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline import params, paths, state
from pipeline.cli import cli
from tests.pipeline.tiny import put, read_demo, write_params
from tinygrow.state.folder import StateFolder


def save(stage: str, model: str = "demo", progress: str = "epoch 1 of 2") -> Path:
    """Save a state as the stage would now; return its folder."""
    belongs = state.belonging(stage, params.read(), model, "cpu")
    path = state.home() / state.name(stage, model, belongs)
    with StateFolder(path, {"stage": stage, "model": model, "belongs": belongs}) as states:
        states.save({"progress": progress})
    return path


def change(place: str, value: object) -> None:
    tree = read_demo()
    put(tree, place, value)
    write_params(Path(), tree)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["clean-state", *arguments])


def test_nothing_is_nothing(folder: Path) -> None:
    result = run()
    assert (result.exit_code, result.output) == (0, "no saved states\n")


def test_states_are_listed_with_what_becomes_of_them(folder: Path) -> None:
    grow, finetune = save("grow", progress="extension 7 of 48"), save("finetune")
    os.utime(grow, (time.time() - 7200,) * 2)
    change("models.demo.finetune.epochs", 77)
    lines = run().output.splitlines()
    assert lines[0].startswith(f"{finetune}  finetune demo: epoch 1 of 2, 0.0 h ago, ")
    assert lines[0].endswith("; old: changed since then are finetune.epochs")
    assert lines[1].startswith(f"{grow}  grow demo: extension 7 of 48, 2.0 h ago, ")
    assert lines[1].endswith("; the next run goes on from it")
    assert lines[2] == "1 of 2 old; remove with: python -m pipeline clean-state --remove"
    assert grow.exists() and finetune.exists()


def test_only_old_states_are_removed_unless_all_are_asked_for(folder: Path) -> None:
    grow, finetune = save("grow"), save("finetune")
    change("models.demo.finetune.epochs", 77)
    assert run("--remove").exit_code == 0
    assert grow.exists() and not finetune.exists()
    assert run("--remove", "--all").exit_code == 0
    assert not grow.exists()


def test_a_state_waits_for_its_input_and_is_old_without_its_model(folder: Path) -> None:
    path = save("finetune")
    paths.grown("demo").unlink()
    result = run("--remove")
    assert f"; its input {paths.grown('demo')} is not there" in result.output
    assert path.exists()
    tree = read_demo()
    tree["models"]["other"] = tree["models"].pop("demo")
    write_params(folder, tree)
    assert "old: there is no model demo in the present params.yaml" in run().output
    assert run("--remove", "demo").exit_code == 0
    assert not path.exists()


def test_a_state_that_is_worked_on_is_left_alone(folder: Path) -> None:
    path = save("grow")
    with StateFolder(path, {}):
        result = run("--remove", "--all")
        assert f"process {os.getpid()} works on it" in result.output
        assert list(path.glob("*.pt"))


def test_only_the_named_models_are_touched(folder: Path) -> None:
    tree = read_demo()
    tree["models"]["other"] = tree["models"]["demo"]
    write_params(folder, tree)
    paths.grown("other").parent.mkdir(parents=True)
    demo, other = save("grow"), save("grow", "other")
    result = run("other", "--remove", "--all")
    assert "demo" not in result.output
    assert demo.exists() and not other.exists()


@pytest.mark.parametrize("damage", ["", "{", None])
def test_a_state_of_unknown_belonging_is_kept_unless_all_are_to_go(
    folder: Path, damage: str | None
) -> None:
    path = save("grow")
    if damage is None:
        (path / "about.json").unlink()
    else:
        (path / "about.json").write_text(damage)
    result = run("--remove")
    assert "nobody knows what it belongs to" in result.output
    assert path.exists()
    run("--remove", "--all")
    assert not path.exists()


def test_settings_that_are_not_complete_are_one_error(folder: Path) -> None:
    save("grow")
    tree = read_demo()
    del tree["models"]["demo"]["seed"]
    write_params(folder, tree)
    result = run()
    assert result.exit_code == 1
    assert "models.demo.seed is missing" in result.stderr and "\n" not in result.stderr.strip()


def test_what_is_no_state_is_old(folder: Path) -> None:
    path = state.home() / "grow-demo-0123456789abcdef"
    path.mkdir(parents=True)
    assert "old: it holds no state" in run().output
    run("--remove")
    assert not path.exists()


def test_all_alone_is_wrong_usage(folder: Path) -> None:
    assert run("--all").exit_code == 2
