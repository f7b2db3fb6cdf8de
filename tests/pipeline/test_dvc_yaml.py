"""`dvc.yaml` says of each stage what the stage really reads, runs and writes."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import params, paths, schema
from pipeline.closure import ROOT, import_closure
from pipeline.params import MODEL_VALUES
from tests.pipeline.closure import compact, expand

STAGES = ("download", "grow", "finetune", "compress", "export", "validate", "report")
BUILDING = ("grow", "finetune", "compress", "export", "validate")
CODE = "${root}/"
USERS = "networks"
"""Where users put their networks."""
OPTIONAL = {paths.benchmark("NAME")}
"""What the report tells of where it is there; DVC knows no such dependency."""


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    return loaded


DVC = load(ROOT / "dvc.yaml")
PARAMS = load(ROOT / "params.yaml")


def template(stage: str) -> dict[str, Any]:
    do: dict[str, Any] = DVC["stages"][stage]["do"]
    return do


def written(stage: str, *kinds: str) -> Iterator[tuple[str, bool]]:
    """Yield each output and whether DVC caches it."""
    for kind in kinds or ("outs", "metrics", "plots"):
        for entry in template(stage).get(kind, []):
            if isinstance(entry, str):
                yield entry, True
                continue
            ((path, options),) = entry.items()
            yield path, options.get("cache", True)


def code_dependencies(stage: str) -> list[str]:
    listed = [d.removeprefix(CODE) for d in template(stage)["deps"] if d.startswith(CODE)]
    return [path for path in listed if path != USERS]


def data_dependencies(stage: str) -> list[str]:
    return [d for d in template(stage)["deps"] if not d.startswith(CODE)]


def fill(path: str) -> Path:
    """Return a path of the template as it is for the model or data set NAME."""
    return Path(path.replace("${key}", "NAME").replace("${item.data}", "NAME"))


def tree(stage: str) -> ast.Module:
    return ast.parse((ROOT / "pipeline" / "stages" / f"{stage}.py").read_text(encoding="utf-8"))


def calls(stage: str) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(stage)) if isinstance(node, ast.Call))


def _related(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents


def pipeline_folders() -> list[Path]:
    return [ROOT, *(path.parent for path in sorted(ROOT.glob("experiments/*/params.yaml")))]


def test_the_stages_are_those_of_the_command_line() -> None:
    assert tuple(DVC["stages"]) == STAGES
    for stage in STAGES:
        command = f"PYTHONPATH=${{root}} python -m pipeline {stage} ${{key}}"
        assert template(stage)["cmd"] == command
        assert template(stage)["desc"]


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_import_closure(stage: str) -> None:
    listed = expand(code_dependencies(stage))
    used = import_closure(Path("pipeline", "stages", f"{stage}.py"))
    missing, superfluous = sorted(map(str, used - listed)), sorted(map(str, listed - used))
    right = "\n".join(f"        - {CODE}{line}" for line in compact(used))
    assert used == listed, (
        f"stage {stage} in dvc.yaml: add {missing}, remove {superfluous}; all of its code:\n{right}"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_stages_that_may_build_a_users_network_hang_on_its_folder(stage: str) -> None:
    used = import_closure(Path("pipeline", "stages", f"{stage}.py"))
    builds = Path("tinygrow/networks/custom.py") in used
    assert (CODE + USERS in template(stage)["deps"]) == builds
    assert builds == (stage in BUILDING)


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_written_shortest(stage: str) -> None:
    assert code_dependencies(stage) == compact(expand(code_dependencies(stage)))


@pytest.mark.parametrize("stage", BUILDING)
def test_long_stages_hang_on_no_code_of_command_line_or_drawing(stage: str) -> None:
    for code in code_dependencies(stage):
        assert not re.match(r"pipeline/(cli|schema|progress|doctor|predict)|tinygrow/report", code)


@pytest.mark.parametrize("stage", STAGES)
def test_files_are_those_that_the_stage_names(stage: str) -> None:
    named = {
        getattr(paths, call.func.attr)("NAME")
        for call in calls(stage)
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "paths"
    }
    listed = {fill(d) for d in data_dependencies(stage) if d != "${item.path}"}
    listed |= {fill(path) for path, _ in written(stage)}
    # A folder stands for its files: `reports/NAME` for its page, `metrics/NAME` in a message.
    unlisted = {n for n in named - OPTIONAL if not any(_related(n, x) for x in listed)}
    unused = {x for x in listed if not any(n == x or x in n.parents for n in named)}
    assert not unlisted, f"stage {stage} in dvc.yaml: name {sorted(map(str, unlisted))}"
    assert not unused, f"stage {stage} does not use {sorted(map(str, unused))}"


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_those_that_the_stage_reads(stage: str) -> None:
    read = set()
    for block in re.findall(r"\.tree\['(\w+)'\]", ast.unparse(tree(stage))):
        read.add({"models": "models.${key}", "data": "data.${item.data}"}[block])
    for call in calls(stage):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        if name in ("section", "value"):
            assert isinstance(call.args[1], ast.Constant), f"{stage}: name the section outright"
            read.add(f"models.${{key}}.{call.args[1].value}")
        elif name == "network_settings":
            read.add("models.${key}.architecture")
        elif name == "data_settings":
            read.add("data.${key}")
    inner = {p for p in read for block in read if p.startswith(f"{block}.")}
    assert set(template(stage)["params"]) == read - inner


def test_every_block_of_a_model_is_read_by_some_stage() -> None:
    makers = [stage for stage in STAGES if stage != "report"]
    listed = {p for stage in makers for p in template(stage)["params"]}
    keys = (*MODEL_VALUES, "architecture", *schema.SECTIONS)
    assert {f"models.${{key}}.{key}" for key in keys} | {"data.${key}"} == listed


def test_every_dependency_on_a_file_is_made_by_an_earlier_stage() -> None:
    made: set[Path] = set()
    for stage in STAGES:
        for dependency in data_dependencies(stage):
            assert dependency == "${item.path}" or fill(dependency) in made, (stage, dependency)
        made |= {fill(path) for path, _ in written(stage)}


def test_metrics_and_plots_live_in_git_and_all_else_of_size_in_the_cache() -> None:
    for stage in STAGES:
        for path, cached in written(stage):
            assert cached == (not path.startswith("metrics/")), path


def test_git_ignores_exactly_the_cached_outputs(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    for folder in (Path(), Path("experiments/x")):
        for stage in STAGES:
            for path, cached in written(stage):
                asked = folder / fill(path)
                answer = subprocess.run(["git", "check-ignore", "-q", asked], cwd=tmp_path)
                assert (answer.returncode == 0) == cached, f".gitignore and {asked}"
    for kept in ("models/README.md", "params.yaml", "dvc.lock", "tinygrow/data/digits.py"):
        answer = subprocess.run(["git", "check-ignore", "-q", kept], cwd=tmp_path)
        assert answer.returncode == 1, f".gitignore hides {kept}"


def test_every_model_of_the_root_is_an_artifact() -> None:
    artifacts = DVC["artifacts"]
    for model in PARAMS["models"]:
        assert model in artifacts, (
            f"add to `artifacts` in dvc.yaml:\n  {model}:\n    path: {paths.product(model)}\n"
            "    type: model"
        )
    for name, artifact in artifacts.items():
        assert name in PARAMS["models"], f"artifact {name} in dvc.yaml has no block under models"
        assert artifact["path"] == str(paths.product(name))
        assert artifact["type"] == "model"


def test_pipeline_folders_share_the_stages() -> None:
    for folder in pipeline_folders()[1:]:
        own = folder / "dvc.yaml"
        same = own.read_bytes() == (ROOT / "dvc.yaml").read_bytes()
        assert same and not own.is_symlink(), f"run: make stages ({own} differs from dvc.yaml)"
        assert (folder / ".dvc" / "config").is_file(), f"{folder} must be a DVC repository"
        assert (folder / load(folder / "params.yaml")["root"]).resolve() == ROOT
        schema.check(params.read(folder / "params.yaml"))
